import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { BEING_MADE, type CliDaemon, cliDaemon, ID, INFO } from '../../support/cli-daemon.ts';

const container = {
  id: 'c'.repeat(64),
  name: 'nginx',
  attempt: 0,
  image: 'registry.example/nginx:1',
  state: 'running',
  createdAt: Date.now() - 90_000,
  exitCode: 0,
  reason: '',
};
const crashed = { ...container, id: 'd'.repeat(64), attempt: 1, state: 'exited', exitCode: 3, reason: 'Error' };

/** As an older or newer daemon might tell it: fields are missing, and the guest's console tries its luck. */
const WHY = {
  id: ID,
  podName: 'web',
  podNamespace: 'default',
  attempt: 2,
  state: 'failed',
  createdAt: Date.now() - 90_000,
  removedAt: Date.now() - 60_000,
  instanceId: 'i-1',
  start: 'clone',
  purchase: { type: 'c7i.large', zone: 'a', market: 'spot', pricePerHour: 0.03 },
  verdict: { kind: 'failed', text: 'guest.run failed: no room', next: 'make room' },
  events: [
    { ms: 0, kind: 'asked', outcome: '', name: 'asked', text: 'the kubelet asks' },
    { ms: 3, kind: 'note', outcome: '', name: 'machine.launch', text: 'c7i.large/b is not to be had' },
    { ms: 4, kind: 'step', outcome: 'done', tookMs: 812, name: 'machine.launch', text: '' },
    { ms: 820, kind: 'step', outcome: 'failed', tookMs: 15.4, name: 'guest.run', text: 'no room\nreally' },
  ],
  consoleTail: 'panic\u001b[31m now',
  others: [
    {
      id: ID,
      podName: 'web',
      podNamespace: 'default',
      attempt: 1,
      state: 'stopped',
      createdAt: Date.now(),
      removedAt: null,
    },
  ],
};
let daemon: CliDaemon;
beforeEach(async () => {
  daemon = await cliDaemon();
});
afterEach(async () => await daemon[Symbol.asyncDispose]());

const known = async () =>
  await daemon.serve({
    describe: async (id) => {
      if (id === BEING_MADE.id) return { ...BEING_MADE, containers: [], consoleTail: '' };
      if (id !== ID) throw new InfraletError('NOT_FOUND', `there is no sandbox ${id}`);
      const consoleTail = '[    0.1] \u001b[31mboot\u001b[0m\r\nlogin';
      return { ...INFO, containers: [container, crashed], consoleTail };
    },
  });
const explaining = async () =>
  await daemon.serve({
    why: async (pod) => {
      if (pod !== 'default/web') throw new InfraletError('NOT_FOUND', `there is no pod ${pod}`);
      return WHY;
    },
  });

describe('describe', () => {
  it('shows timeline, containers and the console, without what a guest could do to a terminal', async () => {
    await using _admin = await known();
    const shown = await daemon.run('describe', ID);
    expect(shown.out).toContain('Pod:     shop/web\n');
    expect(shown.out).toContain('State:   ready\n');
    expect(shown.out).toContain('  launch   120 ms  (+ 120)\n  kernel  2500 ms  (+2380)\n');
    expect(shown.out).toMatch(/c{13} +nginx +0 +running +\d+s +registry\.example\/nginx:1/);
    expect(shown.out).toMatch(/d{13} +nginx +1 +exited \(3, Error\) +\d+s +registry\.example\/nginx:1/);
    expect(shown.out).toContain('  [    0.1] boot\n  login\n');
    expect(shown.out).toContain('Last error:\n  none\n');
  });

  it('knows a sandbox that the CRI does not list yet', async () => {
    await using _admin = await known();
    const shown = await daemon.run('describe', BEING_MADE.id);
    expect(shown.out).toContain('Pod:     shop/slow\n');
    expect(shown.out).toContain('State:   requested (being made)\n');
    expect(shown.out).toContain('Machine: -\n');
    expect(shown.out).toContain('Containers:\n  none\n');
    expect(shown.out).toContain('Last error:\n  no machine: the cloud is full\n  and says so at length\n');
  });

  it('refuses an unknown id', async () => {
    await using _admin = await known();
    await expect(daemon.run('describe', 'nope')).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});

describe('why', () => {
  it('tells the causes in order, with times, the console and what else has this name', async () => {
    await using _admin = await explaining();
    const shown = await daemon.run('why', 'default/web');
    const text = shown.out;
    expect(text).toContain('default/web (attempt 2');
    expect(text).toContain('failed: guest.run failed: no room');
    expect(text).toContain('→ make room');
    expect(text).toContain('machine i-1, cloned, c7i.large in a (spot), $0.03/h');
    expect(text).toMatch(/0 {2}the kubelet asks\n +3 {2}machine\.launch: c7i\.large\/b is not to be had\n/);
    expect(text).toContain('machine.launch: done in 812 ms');
    expect(text).toMatch(/820 {2}guest\.run: FAILED after 15 ms: no room\n +really\n/);
    expect(text).toContain('  panic now');
    expect(text).toMatch(/default\/web +1 +stopped/);
    expect(text).toMatch(/removed \d+s ago/);
  });

  it('gives all of it as JSON, and says so when there is no such pod', async () => {
    await using _admin = await explaining();
    const shown = await daemon.run('why', 'default/web', '--json');
    expect(JSON.parse(shown.out)).toEqual(WHY);
    await expect(daemon.run('why', 'other')).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});
