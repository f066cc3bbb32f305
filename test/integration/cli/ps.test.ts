import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BEING_MADE, type CliDaemon, cliDaemon, ID, INFO } from '../../support/cli-daemon.ts';

const READY = { ...INFO, containers: { running: 1, all: 2 } };
const shape = { cpuMillis: 1000, memoryBytes: 448 * 2 ** 20, diskBytes: 2 ** 30 };
const member = { id: ID, state: 'connected', createdAt: Date.now() - 2000, instanceId: 'i-1', lastError: '' };
const pool = {
  name: 'small',
  shape,
  target: { size: 3, limitedBy: 'memory' },
  ...{ waiting: 1, starting: 1, claims: 7, misses: 2, failed: 1, arrivals: 9, windowMs: 300_000, refillMs: 2500 },
  members: [
    { ...member, machine: { ...shape, usage: { memoryBytes: 100 * 2 ** 20, diskBytes: 1 } } },
    {
      ...{ ...member, id: 'c'.repeat(32), state: 'requested', instanceId: '', lastError: 'no\nhost' },
      machine: { ...shape, usage: null },
    },
  ],
};

let daemon: CliDaemon;
beforeEach(async () => {
  daemon = await cliDaemon();
});
afterEach(async () => await daemon[Symbol.asyncDispose]());

const listing = async (listed: readonly Readonly<Record<string, unknown>>[]) =>
  await daemon.serve({ list: async () => listed });

describe('ps', () => {
  it('lists sandboxes with machine, state, age and sizes', async () => {
    await using _admin = await listing([READY]);
    const shown = await daemon.run('ps');
    expect(shown.code).toBe(0);
    const [header, row] = shown.out.split('\n');
    expect(header).toMatch(/^ID +POD +NAMESPACE +STATE +AGE +IP +CONTAINERS +CPU +MEMORY +DISK +MACHINE$/);
    expect(row?.split(/ {2,}/)).toEqual([
      ID.slice(0, 13),
      'web',
      'shop',
      'ready',
      expect.stringMatching(/^9\ds$/),
      '10.9.0.2',
      '1/2',
      '1.5',
      '200 MiB of 512 MiB',
      '5.0 MiB of 10.0 GiB',
      'i-1',
    ]);
  });

  it('gives JSON to programs', async () => {
    await using _admin = await listing([READY]);
    const shown = await daemon.run('ps', '--json');
    expect(JSON.parse(shown.out)).toEqual([
      expect.objectContaining({ id: ID, ready: true, instanceId: 'i-1', containers: { running: 1, all: 2 } }),
    ]);
  });

  it('lists what is still being made, with the last error', async () => {
    await using _admin = await listing([{ ...BEING_MADE, containers: { running: 0, all: 0 } }, READY]);
    const shown = await daemon.run('ps');
    const [header, making, ready] = shown.out.split('\n');
    expect(header).toMatch(/MACHINE +LAST ERROR$/);
    expect(making?.split(/ {2,}/)).toEqual([
      BEING_MADE.id.slice(0, 13),
      'slow',
      'shop',
      'requested',
      expect.stringMatching(/^\ds$/),
      '-',
      '0/0',
      '1.5',
      '512 MiB',
      '10.0 GiB',
      '-',
      'no machine: the cloud is full and says so at length',
    ]);
    expect(ready).toMatch(/i-1$/);
    const json = await daemon.run('ps', '--json');
    expect(JSON.parse(json.out)).toMatchObject([
      { id: BEING_MADE.id, ready: false, state: 'requested', machine: { usage: null } },
      { id: ID, ready: true, machine: { usage: INFO.machine.usage } },
    ]);
  });

  it('prints a heading alone when there is nothing', async () => {
    await using _admin = await listing([]);
    const shown = await daemon.run('ps');
    expect(shown.out).toMatch(/^ID .* MACHINE\n$/);
  });

  it('shows the machines that wait for pods, and how many pods found one', async () => {
    await using _admin = await daemon.serve({ pools: async () => [pool] });
    const shown = await daemon.run('ps', '--pool');
    expect(shown.code).toBe(0);
    const [header, row, , heading, waiting, starting] = shown.out.split('\n');
    expect(header).toMatch(/^POOL +CPU +MEMORY +TARGET +WAITING +STARTING +CLAIMS +MISSES +FAILED +ARRIVALS +REFILL$/);
    const figures = ['small', '1', '448 MiB', '3 (memory)', '1', '1', '7', '2', '1', '9 in 5m', '2.5s'];
    expect(row?.split(/ {2,}/)).toEqual(figures);
    expect(heading).toMatch(/^ID +POOL +STATE +AGE +MEMORY +MACHINE +LAST ERROR$/);
    const age = expect.stringMatching(/^\ds$/);
    expect(waiting?.split(/ {2,}/)).toEqual([ID.slice(0, 13), 'small', 'waiting', age, '100 MiB of 448 MiB', 'i-1']);
    expect(starting?.split(/ {2,}/)).toEqual([
      'cccccccccccc'.padEnd(13, 'c'),
      'small',
      'requested',
      age,
      '448 MiB',
      '-',
      'no host',
    ]);
    const json = await daemon.run('ps', '--pool', '--json');
    expect(JSON.parse(json.out)).toEqual([pool]);
  });

  it('says that no daemon answers, and what to do', async () => {
    await expect(daemon.run('ps')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('does not answer'),
      hint: expect.stringContaining('npm start'),
    });
  });
});
