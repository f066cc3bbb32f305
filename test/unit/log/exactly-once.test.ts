/**
 * A daemon that is killed at any of its effects, a kubelet that rotates at any time and may be cut off in the middle, a disk
 * that fills up: at the end every byte of the log is in exactly one place of the kubelet's files, in order.
 */
import { mkdtemp, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { systemClock, until } from '../../../src/base/time.ts';
import type { AgentChannel } from '../../../src/guest/channel.ts';
import { type LogDisk, type LogFile, logDisk } from '../../../src/log/disk.ts';
import { LogFollower } from '../../../src/log/follower.ts';
import { type LogPosition, settle } from '../../../src/log/position.ts';
import { LogWriter, type PositionKeeper } from '../../../src/log/writer.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { FakeLog } from '../../support/fake-log.ts';
import { KillSwitch } from '../../support/kill-switch.ts';

const FILE_METHODS = ['size', 'append', 'sync', 'close'] as const;
const ACK_BYTES = 64;

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'logs-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** What outlives a daemon: the guest's log, the journal's row, the kubelet's directory. */
class Place {
  readonly directory: string;
  readonly path: string;
  readonly guest = new FakeLog();
  position: LogPosition | undefined;
  /** A killed program's files are closed by the kernel. */
  readonly opened: LogFile[] = [];
  /** Appends that the disk refuses, or takes a part of, before it takes one. */
  full = 0;
  #rotations = 0;

  constructor(base: string) {
    this.directory = base;
    this.path = join(base, '0.log');
    this.guest.bound = Number.POSITIVE_INFINITY;
  }

  daemon(killSwitch: KillSwitch): Daemon {
    const disk: LogDisk = killSwitch.wrap(
      'disk',
      {
        open: async (path: string) => {
          const file = await logDisk.open(path);
          this.opened.push(file);
          const bent: LogFile = {
            ...file,
            append: async (data) => {
              if (this.full === 0) return await file.append(data);
              this.full -= 1;
              if (this.full % 2 === 0) throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
              return await file.append(data.subarray(0, Math.ceil(data.length / 2)));
            },
          };
          return killSwitch.wrap('file', bent, FILE_METHODS);
        },
        earlier: (path: string, file: string) => logDisk.earlier(path, file),
      },
      ['open', 'earlier'],
    );
    const position: PositionKeeper = killSwitch.wrap(
      'journal',
      {
        get: () => this.position,
        put: (value: LogPosition) => {
          this.position = value;
        },
      },
      ['put'],
    );
    const channel = killSwitch.wrap(
      'guest',
      {
        readLog: (_name: string, offset: number, signal: AbortSignal) => this.guest.read(offset, signal, 23),
        trimLog: async (_name: string, offset: number) => this.guest.trim(offset),
      },
      ['trimLog'],
    );
    const deps = { disk, clock: systemClock, log: nullLogger, fullRetryMs: 1, ackBytes: ACK_BYTES };
    const target = { name: 'log', path: this.path, position };
    return new Daemon(
      killSwitch,
      () => new LogFollower(deps, target, channel as unknown as AgentChannel),
      async () => {
        await using _writer = await LogWriter.open(deps, position, this.path);
      },
    );
  }

  async rename(): Promise<void> {
    const there = await stat(this.path).catch(() => undefined);
    if (!there) return;
    this.#rotations += 1;
    await rename(this.path, `${this.path}.${String(this.#rotations).padStart(4, '0')}`);
  }

  /** As the kubelet does when ReopenContainerLog failed: the newest rotated file takes the place of what is there. */
  async renameBack(): Promise<void> {
    const newest = (await this.rotated()).at(-1);
    if (newest !== undefined) await rename(join(this.directory, newest), this.path);
  }

  async rotated(): Promise<readonly string[]> {
    return (await readdir(this.directory)).filter((name) => name !== '0.log').sort();
  }

  async text(): Promise<string> {
    const files = [...(await this.rotated()), '0.log'];
    const texts = files.map((name) => readFile(join(this.directory, name), 'utf8').catch(() => ''));
    return (await Promise.all(texts)).join('');
  }
}

class Daemon {
  readonly killSwitch: KillSwitch;
  readonly #follow: () => LogFollower;
  readonly #settle: () => Promise<void>;
  #follower: LogFollower;

  constructor(killSwitch: KillSwitch, follow: () => LogFollower, settleNow: () => Promise<void>) {
    this.killSwitch = killSwitch;
    this.#follow = follow;
    this.#settle = settleNow;
    this.#follower = follow();
  }

  get follower(): LogFollower {
    return this.#follower;
  }

  /** ReopenContainerLog. Hangs when the daemon is killed meanwhile. */
  async reopen(): Promise<void> {
    await this.#follower[Symbol.asyncDispose]();
    await this.#settle();
    this.#follower = this.#follow();
  }

  async reconnect(): Promise<void> {
    await this.#follower[Symbol.asyncDispose]();
    this.#follower = this.#follow();
  }
}

type Action =
  | { readonly kind: 'write'; readonly lines: number }
  | { readonly kind: 'kill'; readonly effects: number; readonly when: 'before' | 'after' }
  | { readonly kind: 'rename' | 'rotate' | 'reconnect' | 'settle' }
  | { readonly kind: 'full'; readonly times: number };

const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('write' as const), lines: fc.integer({ min: 1, max: 20 }) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('kill' as const),
      effects: fc.integer({ min: 1, max: 12 }),
      when: fc.constantFrom('before' as const, 'after' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom('rename', 'rotate', 'reconnect', 'settle') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('full' as const), times: fc.integer({ min: 1, max: 5 }) }) },
);

const never = new KillSwitch(Number.POSITIVE_INFINITY, 'after');

async function play(place: Place, actions: readonly Action[]): Promise<string> {
  let written = '';
  let line = 0;
  let daemon = place.daemon(never);
  const killedOr = async (work: Promise<unknown>): Promise<void> => {
    await Promise.race([work, daemon.killSwitch.killed]);
    if (!daemon.killSwitch.dead) return;
    daemon = place.daemon(never);
  };
  for (const step of actions) {
    switch (step.kind) {
      case 'write':
        for (let count = 0; count < step.lines; count += 1) {
          line += 1;
          const text = `line ${line}\n`;
          written += text;
          place.guest.write(text);
        }
        break;
      case 'kill':
        // The next daemon is one that dies after so many effects; it may also stay.
        await killedOr(daemon.follower[Symbol.asyncDispose]());
        await daemon.follower[Symbol.asyncDispose]();
        daemon = place.daemon(new KillSwitch(step.effects, step.when));
        break;
      case 'rename':
        await place.rename();
        break;
      case 'rotate':
        await place.rename();
        await killedOr(daemon.reopen());
        break;
      case 'reconnect':
        await killedOr(daemon.reconnect());
        break;
      case 'settle':
        await killedOr(until(() => (place.guest.first > 0 ? true : undefined), soon()).catch(() => undefined));
        break;
      case 'full':
        place.full = step.times;
        break;
      default:
        step satisfies never;
    }
  }
  place.full = 0;
  place.guest.close();
  await killedOr(daemon.follower.end(5000, AbortSignal.timeout(20_000)));
  await killedOr(daemon.follower[Symbol.asyncDispose]());
  // Whatever daemon it was, the last one finds everything done or does it.
  daemon = place.daemon(never);
  expect(await daemon.follower.end(5000, AbortSignal.timeout(20_000))).toBe('complete');
  await daemon.follower[Symbol.asyncDispose]();
  await Promise.allSettled(place.opened.map((file) => file.close()));
  return written;
}

const soon = () => ({ everyMs: 1, signal: AbortSignal.timeout(15) });

test('every line is there once, whatever happens and in whatever order', { timeout: 120_000 }, async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 3, maxLength: 25 }), async (actions) => {
      run += 1;
      const place = new Place(await mkdtemp(join(directory, `${run}-`)));
      expect(await play(place, actions)).toBe(await place.text());
    }),
    { numRuns: 150 },
  );
});

test('a kubelet that takes its rotation back, since the answer never came, loses nothing', async () => {
  for (let effects = 1; effects <= 8; effects += 1) {
    for (const when of ['before', 'after'] as const) {
      const place = new Place(await mkdtemp(join(directory, 'back-')));
      const first = place.daemon(never);
      place.guest.write('a\n'.repeat(100));
      await until(async () => ((await place.text()).length === 200 ? true : undefined), {
        everyMs: 1,
        signal: AbortSignal.timeout(5000),
      });
      await first.follower[Symbol.asyncDispose]();
      await place.rename();
      const dying = place.daemon(new KillSwitch(effects, when));
      void dying.reopen();
      await Promise.race([dying.killSwitch.killed, systemClock.sleep(50, AbortSignal.timeout(1000))]);
      dying.killSwitch.dead = true;
      await place.renameBack();
      const next = place.daemon(never);
      place.guest.write('b\n'.repeat(100));
      place.guest.close();
      expect(await next.follower.end(5000, AbortSignal.timeout(10_000))).toBe('complete');
      await next.follower[Symbol.asyncDispose]();
      expect(await place.text(), `killed ${when} effect ${effects}`).toBe('a\n'.repeat(100) + 'b\n'.repeat(100));
    }
  }
});

test('what was in the file before the container is left alone', async () => {
  const place = new Place(directory);
  await writeFile(place.path, 'of an earlier container\n');
  expect(await play(place, [{ kind: 'write', lines: 30 }, { kind: 'reconnect' }, { kind: 'write', lines: 3 }])).toBe(
    (await place.text()).slice('of an earlier container\n'.length),
  );
});

test('a file that somebody empties or deletes takes its lines along, and the log goes on without a double', async () => {
  const place = new Place(directory);
  const daemon = place.daemon(never);
  place.guest.write('xxx\n'.repeat(ACK_BYTES / 4));
  await until(() => (place.guest.first > 0 ? true : undefined), { everyMs: 1, signal: AbortSignal.timeout(5000) });
  await daemon.follower[Symbol.asyncDispose]();
  await truncate(place.path, 0);
  expect(await play(place, [{ kind: 'write', lines: 2 }])).toBe(await place.text());
  await rm(place.path);
  const after = place.daemon(never);
  expect(await after.follower.end(5000, AbortSignal.timeout(10_000))).toBe('complete');
  await after.follower[Symbol.asyncDispose]();
  // Acknowledged bytes are gone with the file; the others came again.
  expect(await place.text()).toBe('line 1\nline 2\n');
});

test('a position never goes back behind what the guest has forgotten', () => {
  const natural = fc.integer({ min: 0, max: 1e12 });
  fc.assert(
    fc.property(natural, natural, natural, fc.option(natural, { nil: undefined }), (base, acked, size, earlier) => {
      for (const file of ['a', 'b']) {
        const position = settle({ base, file: 'a', acked }, { file, size }, earlier);
        expect(position.base + size).toBeGreaterThanOrEqual(acked);
        expect(position.acked).toBeGreaterThanOrEqual(acked);
        // The same look again changes nothing: it may have been cut off before anything else happened.
        expect(settle(position, { file, size }, undefined)).toEqual(position);
      }
    }),
  );
});
