/** Keeps the agent small while bytes stream through it: the machine's memory is the pod's. */
import { passingBytes } from '../base/passing-bytes.ts';

/** To be told of every byte of payload that passes. */
export const notePassed = passingBytes(1024 * 1024);
