import { EventEmitter } from 'node:events';
import { describe, expect, it } from 'vitest';
import { listenForShutdown } from '../../../src/cli/shutdown.ts';

class Target extends EventEmitter {
  readonly exits: (number | string | null | undefined)[] = [];
  readonly exit = (code?: number | string | null): never => {
    this.exits.push(code);
    return undefined as never;
  };
}

function start(): {
  readonly target: Target;
  readonly told: string[];
  at: (ms: number) => void;
  readonly signal: AbortSignal;
} {
  const target = new Target();
  const told: string[] = [];
  let now = 0;
  const shutdown = listenForShutdown(
    (name) => told.push(name),
    target as unknown as Parameters<typeof listenForShutdown>[1],
    () => now,
  );
  return {
    target,
    told,
    at: (ms) => {
      now = ms;
    },
    signal: shutdown.signal,
  };
}

describe('listenForShutdown', () => {
  it('asks for an orderly stop with the first signal and exits with the second', () => {
    const { target, told, at, signal } = start();
    target.emit('SIGTERM', 'SIGTERM');
    expect(signal.aborted).toBe(true);
    expect(target.exits).toEqual([]);
    at(1000);
    target.emit('SIGINT', 'SIGINT');
    expect(target.exits).toEqual([130]);
    expect(told).toEqual(['SIGTERM']);
  });

  it('takes one Ctrl-C that arrives three times for one', () => {
    const { target, told, at } = start();
    for (const ms of [0, 2, 300]) {
      at(ms);
      target.emit('SIGINT', 'SIGINT');
    }
    expect(target.exits).toEqual([]);
    expect(told).toEqual(['SIGINT']);
  });

  it('lets go of the process when disposed of', () => {
    const target = new Target();
    listenForShutdown(() => undefined, target as unknown as Parameters<typeof listenForShutdown>[1])[Symbol.dispose]();
    expect(target.listenerCount('SIGINT') + target.listenerCount('SIGTERM')).toBe(0);
  });
});
