/** The user data as the agent finds it: small, checked by hand (no schema library in the guest). */
import { X509Certificate } from 'node:crypto';
import { closeSync, openSync, readSync } from 'node:fs';
import { InfraletError } from '../base/errors.ts';
import { machineToken, USER_DATA_VERSION, type UserData } from '../rpc/agent-protocol.ts';
import { LIMITS } from './options.ts';

/** More than a daemon's user data usually has. */
const FIRST_BYTES = 1536;

/** Undefined when the file is there and blank: this is a template, and its clones find theirs in the same place. */
export function readUserData(path: string): UserData | undefined {
  let text: string;
  try {
    text = withoutPadding(path);
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `no user data in ${path}`, {
      cause: error,
      hint: 'the machine must be started with the user data of ChannelDialer.userData',
    });
  }
  return /^[\0\s]*$/.test(text) ? undefined : parseUserData(text);
}

/**
 * The file but for the padding of firmware files: each of their bytes is a trap into the emulator, 10 us of a start, and each
 * read begins with the first byte again.
 */
function withoutPadding(path: string): string {
  const fd = openSync(path, 'r');
  try {
    const bytes = Buffer.alloc(LIMITS.userData + 1);
    for (let length = 0; ; ) {
      const got = readSync(fd, bytes, length, Math.min(FIRST_BYTES, bytes.length - length), length);
      length += got;
      const text = bytes.toString('utf8', 0, length);
      if (got === 0 || /^[\0\s]*$|\}[\0\s]+$/.test(text)) return text;
    }
  } finally {
    closeSync(fd);
  }
}

/** @param instanceId the machine's id by its metadata service; user data that several machines share needs it. */
export function parseUserData(text: string, instanceId = ''): UserData {
  if (text.length > LIMITS.userData) throw bad(`it has ${text.length} characters`);
  let value: unknown;
  try {
    // Firmware files may be padded.
    value = JSON.parse(text.replace(/[\0\s]+$/, ''));
  } catch {
    throw bad('it is not JSON');
  }
  if (typeof value !== 'object' || value === null) throw bad('it is not an object');
  const fields = new Map<string, unknown>(Object.entries(value));
  if (fields.get('version') !== USER_DATA_VERSION) throw bad(`version ${String(fields.get('version'))} is not known`);
  const ca = string(fields, 'ca');
  try {
    if (!new X509Certificate(ca).ca) throw bad('ca is not the certificate of a CA');
  } catch (error) {
    throw error instanceof InfraletError ? error : bad('ca is not a certificate');
  }
  const shared = fields.has('seed');
  if (shared && instanceId === '') throw bad('it is shared by several machines, and this one does not know its id');
  const token = shared ? machineToken(string(fields, 'seed'), instanceId) : string(fields, 'token');
  if (token.length < 32) throw bad('token is too short');
  return {
    version: USER_DATA_VERSION,
    cluster: string(fields, 'cluster'),
    sandboxId: shared ? '' : string(fields, 'sandboxId'),
    token,
    ca,
    clockMs: number(fields, 'clockMs'),
    entropy: string(fields, 'entropy'),
    maxMessage: number(fields, 'maxMessage'),
    ...(fields.has('leaseMs') ? { leaseMs: number(fields, 'leaseMs') } : {}),
  };
}

function string(fields: ReadonlyMap<string, unknown>, name: string): string {
  const value = fields.get(name);
  if (typeof value !== 'string' || value === '') throw bad(`${name} is missing`);
  return value;
}

function number(fields: ReadonlyMap<string, unknown>, name: string): number {
  const value = fields.get(name);
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value <= 0) throw bad(`${name} is not a number`);
  return value;
}

/** Never quotes the user data: it holds the token. */
function bad(why: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', `the user data is wrong: ${why}`);
}
