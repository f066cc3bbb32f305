/** Logs in a machine: what a writer that plays containerd says comes out once, whoever is killed, and never more than the bound waits. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, open, readdir, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import type { AgentChannel } from '../../../src/guest/channel.ts';
import { installKeeper } from '../../support/agent/keep-log.ts';
import { AgentWorld, soon } from '../../support/agent/machine.ts';

const keeper = installKeeper();
afterAll(() => keeper[Symbol.dispose]());
const options = { args: ['--keep-log', keeper.path] };
const NAME = 'a'.repeat(64);
const BOUND = 64 * 1024;

/** Reads on from where it was, until the channel breaks or the log has ended; removes what it has seen. */
class Reader {
  text = '';
  ended = false;
  failure: unknown;
  readonly #stop = new AbortController();
  readonly done: Promise<void>;

  constructor(channel: AgentChannel, before?: Reader) {
    this.text = before?.text ?? '';
    this.done = this.#read(channel).catch((error: unknown) => {
      this.failure = error;
    });
  }

  async #read(channel: AgentChannel): Promise<void> {
    for await (const { offset, data, ended } of channel.readLog(NAME, this.text.length, this.#stop.signal)) {
      expect(offset).toBe(this.text.length);
      this.text += data.toString('latin1');
      this.ended = ended;
      await channel.trimLog(NAME, this.text.length, soon());
    }
  }

  async reads(match: (reader: Reader) => boolean): Promise<void> {
    await until(() => (match(this) ? true : undefined), { everyMs: 5, signal: AbortSignal.timeout(30_000) });
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.done;
  }
}

/** Plays containerd: writes the numbers from 1 to `last` to the FIFO, as fast as it may. */
function writer(directory: string, last: number) {
  const child = spawn('sh', ['-c', `seq 1 ${last} >"$0"`, join(directory, 'fifo')], { stdio: 'ignore' });
  return { child, gone: once(child, 'exit') };
}

const numbers = (last: number): string => Array.from({ length: last }, (_, index) => `${index + 1}\n`).join('');

async function kept(directory: string): Promise<number> {
  const files = (await readdir(directory)).filter((name) => name.startsWith('s'));
  const sizes = await Promise.all(files.map(async (name) => (await stat(join(directory, name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function keepers(directory: string): Promise<number> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const places = await Promise.all(pids.map(async (pid) => await readlink(`/proc/${pid}/cwd`).catch(() => '')));
  return places.filter((place) => place === directory).length;
}

test('a log comes out whole and in order, its end is told, and nothing of it stays', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled(options);
  const directory = join(machine.dir, 'scratch/logs', NAME);
  await channel.makeLog(NAME, BOUND, '', soon());
  await channel.makeLog(NAME, BOUND, '', soon());
  const reader = new Reader(channel);
  const { gone } = writer(directory, 50_000);
  await reader.reads(({ ended }) => ended);
  await gone;
  expect(reader.text).toBe(numbers(50_000));

  // containerd is started again and goes on.
  const again = writer(directory, 3);
  await reader.reads(({ text }) => text.endsWith('\n3\n'));
  await again.gone;
  await reader.reads(({ ended }) => ended);
  expect(reader.text).toBe(`${numbers(50_000)}1\n2\n3\n`);
  await reader.stop();
  expect(await kept(directory)).toBeLessThanOrEqual(BOUND / 16);

  expect(await keepers(directory)).toBe(1);
  await channel.removeLog(NAME, soon());
  await channel.removeLog(NAME, soon());
  await until(async () => ((await keepers(directory)) === 0 ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(5000),
  });
  expect(await readdir(join(machine.dir, 'scratch/logs'))).toEqual([]);
  await expect(new Reader(channel).done.then(() => channel.trimLog(NAME, 0, soon()))).rejects.toMatchObject({
    code: 'NOT_FOUND',
  });
});

test('with nobody who reads, the bound is kept and the writer waits; then it goes on where it was', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled(options);
  const directory = join(machine.dir, 'scratch/logs', NAME);
  await channel.makeLog(NAME, BOUND, '', soon());
  const { child, gone } = writer(directory, 100_000);
  await until(async () => ((await kept(directory)) === BOUND ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(20_000),
  });
  // More would be there after any time: each of these looks costs the writer nothing.
  for (let look = 0; look < 50; look += 1) expect(await kept(directory)).toBe(BOUND);
  expect(child.exitCode).toBe(null);
  // Somebody who is killed is let go of: a higher bound takes what is left in the pipe.
  await channel.makeLog(NAME, 2 * BOUND, '', soon());
  await until(async () => ((await kept(directory)) > BOUND ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(20_000),
  });
  const reader = new Reader(channel);
  await reader.reads(({ ended }) => ended);
  await gone;
  expect(reader.text).toBe(numbers(100_000));
  await reader.stop();
  await channel.removeLog(NAME, soon());
});

test('what a container leaves behind when it ends is taken, whatever waits already', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled(options);
  const directory = join(machine.dir, 'scratch/logs', NAME);
  await channel.makeLog(NAME, BOUND, '', soon());
  const id = 'b'.repeat(64);
  const task = join(machine.dir, 'run/containerd/io.containerd.runtime.v2.task/k8s.io', id);
  await mkdir(task, { recursive: true });
  await writeFile(join(task, 'init.pid'), String(process.pid));
  await channel.makeLog(NAME, BOUND, id, soon());
  const { child, gone } = writer(directory, 100_000);
  await until(async () => ((await kept(directory)) === BOUND ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(20_000),
  });
  for (let look = 0; look < 50; look += 1) expect(await kept(directory)).toBe(BOUND);
  await until(async () => ((await keepers(directory)) > 1 ? true : undefined), {
    everyMs: 1,
    signal: AbortSignal.timeout(5000),
  });
  expect(await kept(directory)).toBe(BOUND);
  expect(child.exitCode).toBe(null);
  await rm(task, { recursive: true });
  await gone;
  await until(async () => ((await kept(directory)) === numbers(100_000).length ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(20_000),
  });
  await channel.removeLog(NAME, soon());
});

test('the agent is killed again and again: no byte is lost, none comes twice', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel, dialer, identity } = await world.enrolled(options);
  const directory = join(machine.dir, 'scratch/logs', NAME);
  await channel.makeLog(NAME, BOUND, '', soon());
  // One descriptor held open: the end comes only when it is closed.
  const { child, gone } = writer(directory, 200_000);
  let reader = new Reader(channel);
  for (let round = 1; round <= 3; round += 1) {
    const target = reader.text.length + 60_000;
    await reader.reads(({ text }) => text.length > target);
    await machine.kill();
    await reader.stop();
    await machine.start();
    const next = world.use(await dialer.connect(machine.address, identity, soon()));
    reader = new Reader(next, reader);
  }
  await reader.reads(({ ended }) => ended);
  await gone;
  expect(child.exitCode).toBe(0);
  expect(reader.text).toBe(numbers(200_000));
  expect(await keepers(directory)).toBe(1);
  await reader.stop();
  const last = world.use(await dialer.connect(machine.address, identity, soon()));
  await last.removeLog(NAME, soon());
  await until(async () => ((await keepers(directory)) === 0 ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(5000),
  });
});

test('names that are none are refused; so are offsets beyond the end', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled(options);
  for (const name of ['', '..', 'a/b', '/etc']) {
    await expect(channel.makeLog(name, BOUND, '', soon()), name).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(channel.removeLog(name, soon()), name).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  }
  await channel.makeLog(NAME, BOUND, '', soon());
  const directory = join(machine.dir, 'scratch/logs', NAME);
  const fifo = await open(join(directory, 'fifo'), 'w');
  await fifo.write('bytes\0\xff');
  await until(async () => ((await kept(directory)) === 8 ? true : undefined), {
    everyMs: 10,
    signal: AbortSignal.timeout(5000),
  });
  const beyond = channel.readLog(NAME, 9, AbortSignal.timeout(10_000))[Symbol.asyncIterator]();
  await expect(beyond.next()).rejects.toMatchObject({ code: 'OUT_OF_RANGE' });
  await fifo.close();
  await channel.removeLog(NAME, soon());
});
