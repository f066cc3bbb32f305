import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminSocket } from '../../../src/admin/protocol.ts';
import { startAdminServer } from '../../../src/admin/server.ts';
import { InfraletError } from '../../../src/base/errors.ts';
import { parseDigest } from '../../../src/base/ids.ts';
import { runCommand } from '../../../src/cli/program.ts';
import { chooseOffers } from '../../../src/cloud/choice.ts';
import type { MachineShape } from '../../../src/cloud/contract.ts';
import type { Offer, Placement } from '../../../src/cloud/offers.ts';
import { configSchema } from '../../../src/config/schema.ts';
import type { ImageRecord } from '../../../src/image/service.ts';
import { explainSize, parseFootprint } from '../../../src/sandbox/explain.ts';
import type { Orphan } from '../../../src/sandbox/sweeper.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { captureIo } from '../../support/cli-io.ts';
import { startCriStub } from '../../support/cri-stub.ts';

const ID = 'a'.repeat(32);
const IMAGE_ID = `sha256:${'b'.repeat(64)}`;
const now = Date.now();
const INFO = {
  id: ID,
  podName: 'web',
  podNamespace: 'shop',
  podUid: 'uid-1',
  attempt: 0,
  createdAt: now - 90_000,
  state: 'ready',
  wanted: 'ready',
  ready: true,
  listed: true,
  reason: '',
  instanceId: 'i-1',
  podIp: '10.9.0.2',
  machine: {
    cpuMillis: 1500,
    memoryBytes: 512 * 2 ** 20,
    diskBytes: 10 * 2 ** 30,
    usage: { memoryBytes: 200 * 2 ** 20, diskBytes: 5 * 2 ** 20 },
  },
  timeline: [
    { phase: 'launch', ms: 120 },
    { phase: 'kernel', ms: 2500 },
  ],
  lastError: '',
};

const container = {
  id: 'c'.repeat(64),
  name: 'nginx',
  attempt: 0,
  image: 'registry.example/nginx:1',
  state: 'running',
  createdAt: now - 90_000,
  exitCode: 0,
  reason: '',
};
const crashed = { ...container, id: 'd'.repeat(64), attempt: 1, state: 'exited', exitCode: 3, reason: 'Error' };

/** What the daemon says of a sandbox that is being made and has its troubles. */
const BEING_MADE = {
  ...INFO,
  id: 'b'.repeat(32),
  podName: 'slow',
  createdAt: now - 3_000,
  state: 'requested',
  ready: false,
  listed: false,
  instanceId: '',
  podIp: '',
  machine: { ...INFO.machine, usage: null },
  timeline: [],
  lastError: 'no machine: the cloud is full\nand says so at length\u001b[31m',
};

const shape = { cpuMillis: 1000, memoryBytes: 448 * 2 ** 20, diskBytes: 2 ** 30 };
const member = { id: ID, state: 'connected', createdAt: now - 2000, instanceId: 'i-1', lastError: '' };
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

let directory: string;
let socket: string;
let config: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-cli-'));
  socket = join(directory, 'cri.sock');
  config = join(directory, 'infralet.yaml');
  await writeFile(config, `server:\n  socket: ${socket}\nstateDir: ${directory}\n`);
});
afterEach(async () => rm(directory, { recursive: true }));

const stub = async () =>
  await startCriStub(socket, {
    ListImages: () => ({ images: [{ id: IMAGE_ID, repoTags: ['registry.example/nginx:1'], size: '1536' }] }),
    ImageStatus: ({ image }) => ({ image: image?.image === 'registry.example/nginx:1' ? { id: IMAGE_ID } : null }),
    RemoveImage: () => ({}),
  });

const record: ImageRecord = {
  id: parseDigest(IMAGE_ID),
  manifest: parseDigest(IMAGE_ID),
  repoTags: ['registry.example/nginx:1'],
  repoDigests: [],
  size: 2048,
  uid: undefined,
  username: '',
  pinned: false,
  annotations: {},
};
const loads: { readonly source: string; readonly names: readonly string[] }[] = [];
const READY = { ...INFO, containers: { running: 1, all: 2 } };
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
const admin = async (listed: readonly Readonly<Record<string, unknown>>[] = [READY]) =>
  await startAdminServer({
    path: adminSocket(socket),
    images: {
      load: async (source, names) => {
        loads.push({ source, names });
        if (source.includes('broken'))
          throw new InfraletError('INVALID_ARGUMENT', 'no OCI layout', { hint: 'try another' });
        return [record];
      },
    },
    list: async () => listed,
    doctor: async () => [{ name: 'machines', ok: false, detail: 'none left', fix: 'make room' }],
    pools: async () => [pool],
    describe: async (id) => {
      if (id === BEING_MADE.id) return { ...BEING_MADE, containers: [], consoleTail: '' };
      if (id !== ID) throw new InfraletError('NOT_FOUND', `there is no sandbox ${id}`);
      const consoleTail = '[    0.1] \u001b[31mboot\u001b[0m\r\nlogin';
      return { ...INFO, containers: [container, crashed], consoleTail };
    },
    explainSize: async (pod, signal) => await explainSize(parseFootprint(pod), settings, cloud, signal),
    orphans: {
      orphans: async () => ORPHANS,
      remove: async (named) => {
        removed.push(...named.map(({ kind, id }) => `${kind}/${id}`));
        return named.map(({ kind, id }) => ({ kind, id, outcome: kind === 'disk' ? 'failed' : 'removed', reason: '' }));
      },
    },
    volumes: { attach: async () => '', detach: async () => undefined },
    why: async (pod) => {
      if (pod !== 'default/web') throw new InfraletError('NOT_FOUND', `there is no pod ${pod}`);
      return WHY;
    },
    drainMs: 100,
    log: nullLogger,
  });

const removed: string[] = [];
const ORPHANS: readonly Orphan[] = [
  { kind: 'machine', id: 'i-0123', sandboxId: ID, ageMs: 7_200_000, pricePerHour: 0.5 },
  { kind: 'disk', id: 'vol-1', sandboxId: '', ageMs: 45_000, pricePerHour: null },
];
const settings = configSchema.parse({ profiles: { 'vmpod-spot': { market: 'spot' } } });
const offer = (type: string, pricePerHour: number, cpuMillis: number): Offer => ({
  type: { name: type, architecture: 'amd64', cpuMillis, memoryBytes: 8 * 2 ** 30, gpus: undefined },
  ...{ zone: 'a', market: 'on-demand', pricePerHour, estimated: false },
});
/** A cloud with two types of machines. */
const cloud = {
  name: 'small-cloud',
  explain: async (shape: MachineShape, placement: Placement) => {
    const { ranked, rejected } = chooseOffers({
      ...{ shape, placement, reserve: { fixed: 0, share: 0 }, unavailable: () => undefined },
      offers: [offer('big.large', 0.2, 8000), offer('tiny.small', 0.1, 2000)],
    });
    const flat = ({ type, ...each }: Offer) => ({ ...each, ...type, type: type.name });
    return {
      ranked: ranked.map(flat),
      rejected: rejected.map(({ offer: each, reason }) => ({ offer: flat(each), reason })),
    };
  },
};

describe('explain size', () => {
  const manifest = (cpu: string, extra = ''): string =>
    `apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop${extra}}\n` +
    `spec: {containers: [{name: a, image: x, resources: {limits: {cpu: "${cpu}", memory: 1Gi}}}]}\n`;
  const explain = async (text: string, ...more: readonly string[]) => {
    const file = join(directory, 'pod.yaml');
    await writeFile(file, text);
    const io = captureIo();
    const code = await runCommand(['explain', 'size', file, '--config', config, ...more], io);
    return { code, out: io.stdout() };
  };

  it('shows the ranking with prices and why the others are left out', async () => {
    await using _admin = await admin();
    const both = await explain(manifest('1'));
    expect(both.code).toBe(0);
    expect(both.out).toContain('pod shop/web: 1 CPU, 1.2 GiB of memory, 10.0 GiB of disk');
    expect(both.out).toMatch(/1 +tiny\.small +a +on-demand +2 +8\.0 GiB +- +0\.1000\n2 +big\.large/);
    const one = await explain(manifest('4'));
    expect(one.out).toMatch(/1 +it has 2000 of 4000 thousandths of a CPU +tiny\.small/);
    const none = await explain(manifest('9'));
    expect(none.code).toBe(1);
    expect(none.out).toContain('no offer will do');
  });

  it('takes the handler of the command line, and gives everything as JSON', async () => {
    await using _admin = await admin();
    const { code, out } = await explain(manifest('1'), '--handler', 'vmpod-spot', '--json');
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      placement: { market: 'spot' },
      offers: {
        ranked: [],
        rejected: [{ reason: 'it is on-demand, spot is wanted' }, { offer: { type: 'tiny.small' } }],
      },
    });
  });

  it('refuses as the daemon would refuse the pod', async () => {
    await using _admin = await admin();
    await expect(explain(manifest('1', ', annotations: {infralet.dev/market: spot}'))).rejects.toThrow(
      'pod shop/web: annotation infralet.dev/market: pods of this namespace may not have it',
    );
    await expect(explain(manifest('1'), '--handler', 'other')).rejects.toThrow('there is no runtime handler "other"');
  });

  it('asks the provider itself where no daemon runs', async () => {
    const file = join(directory, 'fake.yaml');
    await writeFile(file, `server: {socket: ${socket}}\nstateDir: ${directory}\nprovider: fake\n`);
    const { code, out } = await explain(manifest('1'), '--config', file);
    expect(code).toBe(0);
    expect(out).toContain('the provider fake makes machines of any size');
  });
});

describe('orphans', () => {
  it('lists what belongs to nobody with age and price, and removes what it has listed', async () => {
    await using _admin = await admin();
    const io = captureIo();
    expect(await runCommand(['orphans', '--config', config], io)).toBe(0);
    expect(io.stdout()).toMatch(/machine +i-0123 +2h +0\.5000 +a{32}\ndisk +vol-1 +45s +- +-\n/);
    expect(io.stdout()).toContain('together 0.5000 USD per hour');
    expect(removed).toEqual([]);
    const second = captureIo();
    expect(await runCommand(['orphans', '--delete', '--config', config], second)).toBe(1);
    expect(removed).toEqual(['machine/i-0123', 'disk/vol-1']);
    expect(second.stdout()).toMatch(/i-0123 .* removed\n.*vol-1 .* could not be removed/);
  });
});

describe('why', () => {
  it('tells the causes in order, with times, the console and what else has this name', async () => {
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['why', 'default/web', '--config', config], io);
    const text = io.stdout();
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
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['why', 'default/web', '--json', '--config', config], io);
    expect(JSON.parse(io.stdout())).toEqual(WHY);
    await expect(runCommand(['why', 'other', '--config', config], captureIo())).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });
});

describe('doctor', () => {
  it("asks the running daemon's provider instead of opening a second one", async () => {
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['doctor', '--json', '--config', config], io);
    expect(JSON.parse(io.stdout())).toContainEqual({
      name: 'qemu: machines',
      ok: false,
      detail: 'none left',
      fix: 'make room',
    });
  });
});

describe('ps', () => {
  it('lists sandboxes with machine, state, age and sizes', async () => {
    await using _admin = await admin();
    const io = captureIo();
    expect(await runCommand(['ps', '--config', config], io)).toBe(0);
    const [header, row] = io.stdout().split('\n');
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
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['ps', '--json', '--config', config], io);
    expect(JSON.parse(io.stdout())).toEqual([
      expect.objectContaining({ id: ID, ready: true, instanceId: 'i-1', containers: { running: 1, all: 2 } }),
    ]);
  });

  it('lists what is still being made, with the last error', async () => {
    await using _admin = await admin([{ ...BEING_MADE, containers: { running: 0, all: 0 } }, READY]);
    const io = captureIo();
    await runCommand(['ps', '--config', config], io);
    const [header, making, ready] = io.stdout().split('\n');
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
    const json = captureIo();
    await runCommand(['ps', '--json', '--config', config], json);
    expect(JSON.parse(json.stdout())).toMatchObject([
      { id: BEING_MADE.id, ready: false, state: 'requested', machine: { usage: null } },
      { id: ID, ready: true, machine: { usage: INFO.machine.usage } },
    ]);
  });

  it('prints a heading alone when there is nothing', async () => {
    await using _admin = await admin([]);
    const io = captureIo();
    await runCommand(['ps', '--config', config], io);
    expect(io.stdout()).toMatch(/^ID .* MACHINE\n$/);
  });

  it('shows the machines that wait for pods, and how many pods found one', async () => {
    await using _admin = await admin();
    const io = captureIo();
    expect(await runCommand(['ps', '--pool', '--config', config], io)).toBe(0);
    const [header, row, , heading, waiting, starting] = io.stdout().split('\n');
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
    const json = captureIo();
    await runCommand(['ps', '--pool', '--json', '--config', config], json);
    expect(JSON.parse(json.stdout())).toEqual([pool]);
  });

  it('says that no daemon answers, and what to do', async () => {
    await expect(runCommand(['ps', '--config', config], captureIo())).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('does not answer'),
      hint: expect.stringContaining('npm start'),
    });
  });
});

describe('image list and rm', () => {
  it('lists names, ids and sizes', async () => {
    await using _cri = await stub();
    const io = captureIo();
    await runCommand(['image', 'list', '--config', config], io);
    expect(io.stdout().split('\n')[1]).toMatch(/^registry\.example\/nginx:1 +b{13} +1\.5 KiB$/);
  });

  it('removes what is there and refuses what is not', async () => {
    await using cri = await stub();
    const io = captureIo();
    await runCommand(['image', 'rm', 'registry.example/nginx:1', '--config', config], io);
    expect(cri.calls).toEqual(['ImageStatus', 'RemoveImage']);
    await expect(runCommand(['image', 'rm', 'absent:1', '--config', config], io)).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('absent:1'),
    });
    expect(cri.calls).toEqual(['ImageStatus', 'RemoveImage', 'ImageStatus']);
  });
});

describe('describe and image load, through the admin socket', () => {
  it('shows timeline, containers and the console, without what a guest could do to a terminal', async () => {
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['describe', ID, '--config', config], io);
    expect(io.stdout()).toContain('Pod:     shop/web\n');
    expect(io.stdout()).toContain('State:   ready\n');
    expect(io.stdout()).toContain('  launch   120 ms  (+ 120)\n  kernel  2500 ms  (+2380)\n');
    expect(io.stdout()).toMatch(/c{13} +nginx +0 +running +\d+s +registry\.example\/nginx:1/);
    expect(io.stdout()).toMatch(/d{13} +nginx +1 +exited \(3, Error\) +\d+s +registry\.example\/nginx:1/);
    expect(io.stdout()).toContain('  [    0.1] boot\n  login\n');
    expect(io.stdout()).toContain('Last error:\n  none\n');
  });

  it('knows a sandbox that the CRI does not list yet', async () => {
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['describe', BEING_MADE.id, '--config', config], io);
    expect(io.stdout()).toContain('Pod:     shop/slow\n');
    expect(io.stdout()).toContain('State:   requested (being made)\n');
    expect(io.stdout()).toContain('Machine: -\n');
    expect(io.stdout()).toContain('Containers:\n  none\n');
    expect(io.stdout()).toContain('Last error:\n  no machine: the cloud is full\n  and says so at length\n');
  });

  it('refuses an unknown id', async () => {
    await using _admin = await admin();
    await expect(runCommand(['describe', 'nope', '--config', config], captureIo())).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  it('loads by absolute path with the given names', async () => {
    await using _admin = await admin();
    const io = captureIo();
    await runCommand(['image', 'load', 'oci:some/layout', '--name', 'a:1', '--config', config], io);
    expect(loads.at(-1)).toEqual({ source: `oci:${join(process.cwd(), 'some/layout')}`, names: ['a:1'] });
    expect(io.stdout()).toBe('loaded registry.example/nginx:1 (bbbbbbbbbbbbb, 2.0 KiB)\n');
    await expect(runCommand(['image', 'load', 'broken.tar', '--config', config], io)).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('no OCI layout'),
    });
  });

  it('lets root only use the socket, and removes it at the end', async () => {
    const { mode } = await (async () => {
      await using _admin = await admin();
      const { stat } = await import('node:fs/promises');
      return await stat(adminSocket(socket));
    })();
    expect(mode & 0o777).toBe(0o600);
    await expect(readFile(adminSocket(socket))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
