/** What the two processes of bench:lists say to each other. */
import type { Hot } from './profile.ts';

export type Ask = 'state' | 'memory' | 'profile' | 'profiled';

export interface DaemonState {
  /** CPU time used so far, milliseconds. */
  readonly cpuMs: number;
  /** Bytes. */
  readonly resident: number;
}

export interface Answer {
  readonly state: DaemonState;
  /** Resident bytes after a garbage collection. */
  readonly settled?: number;
  /** Bytes of live JavaScript objects after it. */
  readonly heap?: number;
  readonly hot?: readonly Hot[];
}
