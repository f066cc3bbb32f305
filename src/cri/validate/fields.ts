/** Checks of single fields. Each throws INVALID_ARGUMENT with the field's path as the CRI spells it. */
import { InfraletError } from '../../base/errors.ts';

/** Longest name of a Kubernetes object. */
const MAX_NAME = 253;

export function invalid(path: string, problem: string): never {
  throw new InfraletError('INVALID_ARGUMENT', `${path}: ${problem}`, { context: { field: path } });
}

/** For messages that must be there. */
export function required<T>(path: string, value: T | null | undefined): T {
  if (value === null || value === undefined) invalid(path, 'must be set');
  return value;
}

export function nonEmpty(path: string, value: string): string {
  if (value === '') invalid(path, 'must not be empty');
  return value;
}

/** Printable text of limited length: what ends up in file names, tags, log lines or another program's configuration. */
export function text(path: string, value: string, maxLength = MAX_NAME): void {
  if (value.length > maxLength) invalid(path, `must not be longer than ${maxLength} characters, has ${value.length}`);
  if (hasControl(value)) invalid(path, 'must not contain control characters');
}

/** A name that may become part of a path. */
export function name(path: string, value: string): void {
  nonEmpty(path, value);
  text(path, value);
  if (value.includes('/') || value === '.' || value === '..') invalid(path, 'must not be "." or "..", nor contain "/"');
}

/** A word for resolv.conf and the like. */
export function word(path: string, value: string, maxLength = MAX_NAME): void {
  nonEmpty(path, value);
  text(path, value, maxLength);
  if (/\s/.test(value)) invalid(path, 'must not contain spaces');
}

/** Longest path that Linux takes. */
const PATH_MAX = 4095;

export function noNul(path: string, value: string): void {
  if (value.includes('\0')) invalid(path, 'must not contain a NUL byte');
}

export function absolutePath(path: string, value: string): void {
  nonEmpty(path, value);
  noNul(path, value);
  if (value.length > PATH_MAX) invalid(path, `must not be longer than ${PATH_MAX} characters`);
  if (!value.startsWith('/')) invalid(path, `must be an absolute path, is ${quote(value)}`);
}

export function noParent(path: string, value: string): void {
  if (value.split('/').includes('..')) invalid(path, `must not contain "..", is ${quote(value)}`);
}

/** Any value of its enum: numbers that the enum does not know stay numbers when a message is read. */
export function knownEnum(path: string, value: unknown): void {
  if (typeof value !== 'string') invalid(path, `is no known value: ${quote(value)}`);
}

/** One of some values of an enum. */
export function oneOf(path: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) invalid(path, `must be one of ${allowed.join(', ')}, is ${quote(value)}`);
}

export function range(path: string, value: number, low: number, high: number): void {
  if (!Number.isInteger(value) || value < low || value > high) {
    invalid(path, `must be between ${low} and ${high}, is ${value}`);
  }
}

/** An int64, which arrives as decimal text. */
export function range64(path: string, value: string, low: bigint, high: bigint = 2n ** 63n - 1n): bigint {
  const number = BigInt(value);
  if (number < low) invalid(path, `must be at least ${low}, is ${value}`);
  if (number > high) invalid(path, `must be at most ${high}, is ${value}`);
  return number;
}

/** For messages of another operating system. */
export function absent(path: string, value: unknown, why: string): void {
  if (value !== null && value !== undefined) invalid(path, why);
}

export function quote(value: unknown): string {
  const shown = JSON.stringify(value);
  return shown.length <= 80 ? shown : `${shown.slice(0, 79)}…`;
}

function hasControl(value: string): boolean {
  for (let at = 0; at < value.length; at++) {
    const unit = value.charCodeAt(at);
    if (unit < 0x20 || unit === 0x7f) return true;
  }
  return false;
}
