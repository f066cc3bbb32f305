/** What belongs to nobody goes, and nothing else does: over machines and networks in memory, in virtual time. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { newSandboxId, type SandboxId } from '../../../src/base/ids.ts';
import { type Leftover, type Provider, TAGS } from '../../../src/cloud/contract.ts';
import { loadProvider } from '../../../src/cloud/loader.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { Sweeper } from '../../../src/sandbox/sweeper.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { VirtualClock } from '../../support/cloud/virtual-clock.ts';
import { FakeNetwork } from '../../support/fake-guest.ts';

const OWNER = { [TAGS.cluster]: 'default', [TAGS.node]: 'node-1' };
const config = configSchema.parse({});
const signal = AbortSignal.timeout(60_000);

let clock: VirtualClock;
let machines: Provider;
let network: FakeNetwork;
let leftovers: Leftover[];
let broken: Set<string>;
let known: Set<string>;
let sweeper: Sweeper;

beforeEach(async () => {
  clock = new VirtualClock();
  network = new FakeNetwork();
  leftovers = [];
  broken = new Set();
  known = new Set();
  const module = await loadProvider('fake');
  machines = await module.create(
    module.parseConfig({}),
    { log: nullLogger, clock, stateDir: '/nowhere', guestImageDir: '/nowhere', owner: OWNER },
    signal,
  );
  const provider = {
    describe: machines.describe.bind(machines),
    terminate: machines.terminate.bind(machines),
    leftovers: {
      list: async () => leftovers,
      remove: async ({ id }: Leftover) => {
        if (broken.has(id)) throw new Error('it is in use');
        leftovers = leftovers.filter((each) => each.id !== id);
      },
    },
  };
  const store = { knows: (id: string) => known.has(id) };
  sweeper = new Sweeper({ config, nodeName: 'node-1', provider, network, store, clock, log: nullLogger });
});
afterEach(async () => {
  await clock.run(sweeper[Symbol.asyncDispose]());
  await machines[Symbol.asyncDispose]();
});

async function machine(sandboxId: string, tags: Readonly<Record<string, string>> = OWNER): Promise<string> {
  const request = {
    ...{ token: sandboxId, userData: '{}', shape: { cpuMillis: 1000, memoryBytes: 1, diskBytes: 1 } },
    tags: { ...tags, [TAGS.sandbox]: sandboxId },
  };
  const [result] = await machines.launch([request], signal);
  if (!result?.ok) throw new Error('not launched');
  return result.instance.id;
}
const alive = async (): Promise<readonly string[]> =>
  (await machines.describe({ by: 'tags', tags: {} }, signal)).map(({ id }) => id);
const spec = (sandboxId: SandboxId) => ({ sandboxId, podName: '', podNamespace: '', podUid: '', portMappings: [] });
const disk = (id: string, createdAt: number | undefined, sandbox = ''): Leftover => ({
  ...{ kind: 'disk', id, createdAt },
  tags: { ...OWNER, ...(sandbox === '' ? {} : { [TAGS.sandbox]: sandbox }) },
});
const pass = async (ms: number): Promise<void> => await clock.run(clock.sleep(ms, signal));

test('takes two looks and thirty seconds before anything goes; what is known stays', async () => {
  const [mine, stray, strange] = [newSandboxId(), newSandboxId(), newSandboxId()];
  known.add(mine);
  const kept = await machine(mine);
  await machine(stray);
  const others = await machine(strange, { ...OWNER, [TAGS.node]: 'node-2' });
  await network.add(spec(mine));
  await network.add(spec(stray));
  leftovers = [disk('young', undefined), disk('of-mine', 0, mine), disk('old', clock.now())];

  await sweeper.sweep(signal);
  await pass(20_000);
  await sweeper.sweep(signal);
  expect(await alive()).toHaveLength(3);
  expect(leftovers).toHaveLength(3);
  await pass(10_000);
  leftovers = [...leftovers, disk('new', clock.now())];
  await sweeper.sweep(signal);
  expect(await alive()).toEqual([kept, others]);
  expect([...network.attached.keys()]).toEqual([mine]);
  expect(leftovers.map(({ id }) => id)).toEqual(['of-mine', 'new']);
});

test('an old machine that is seen for the first time gets another look: its record may be on its way', async () => {
  const late = newSandboxId();
  const id = await machine(late);
  await pass(3_600_000);
  await sweeper.sweep(signal);
  known.add(late);
  await sweeper.sweep(signal);
  await sweeper.sweep(signal);
  expect(await alive()).toEqual([id]);
});

test('what cannot be removed keeps nothing else, and is tried again', async () => {
  leftovers = [disk('stuck', 0), disk('free', 0)];
  broken.add('stuck');
  await machine(newSandboxId());
  await pass(31_000);
  await sweeper.sweep(signal);
  await sweeper.sweep(signal);
  expect(await alive()).toEqual([]);
  expect(leftovers.map(({ id }) => id)).toEqual(['stuck']);
  broken.clear();
  await sweeper.sweep(signal);
  expect(leftovers).toEqual([]);
});

test('looks every 10 s at first, every minute later', async () => {
  const looks: number[] = [];
  const begun = clock.now();
  const list = network.list.bind(network);
  network.list = async () => {
    looks.push(clock.now() - begun);
    return await list();
  };
  sweeper.start();
  await pass(400_000);
  const gaps = looks.slice(1).map((at, index) => at - (looks[index] ?? 0));
  expect(gaps.slice(0, 20)).toEqual(Array.from({ length: 20 }, () => 10_000));
  expect(gaps.slice(20)).toEqual([60_000, 60_000, 60_000]);
});

test('orphans are listed with age; those named are removed unless they are young or somebody’s by now', async () => {
  const [adopted, stray] = [newSandboxId(), newSandboxId()];
  const first = await machine(adopted);
  const second = await machine(stray);
  await pass(40_000);
  leftovers = [disk('young', clock.now())];
  const listed = await clock.run(sweeper.orphans(signal));
  expect(listed).toEqual([
    { kind: 'machine', id: first, sandboxId: adopted, ageMs: 40_000, pricePerHour: null },
    { kind: 'machine', id: second, sandboxId: stray, ageMs: 40_000, pricePerHour: null },
    { kind: 'disk', id: 'young', sandboxId: '', ageMs: 0, pricePerHour: null },
  ]);
  known.add(adopted);
  const removed = await sweeper.remove(listed, signal);
  expect(removed.map(({ outcome }) => outcome)).toEqual(['gone', 'removed', 'young']);
  expect(await alive()).toEqual([first]);
  expect(leftovers).toHaveLength(1);
});
