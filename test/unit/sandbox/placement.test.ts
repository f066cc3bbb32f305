import { describe, expect, test } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';
import { machineDemand, type PodFootprint, requirePlaceable } from '../../../src/sandbox/placement.ts';
import { poolClasses, serves } from '../../../src/sandbox/pool-classes.ts';
import { parseSandboxRecord } from '../../../src/sandbox/record.ts';
import { sandboxRecord } from '../../support/sandbox-records.ts';

const GIB = 2 ** 30;
const config = configSchema.parse({
  profiles: {
    'vmpod-spot': { market: 'spot' },
    'vmpod-gpu': { gpu: { count: 2, model: 'T4' }, instanceTypes: ['g4dn.*'], zones: ['a', 'b'], disk: '50Gi' },
  },
  policy: {
    annotations: [
      { namespaces: ['poor'], allow: [] },
      { namespaces: ['ci-*'], allow: ['market', 'instance-*', 'disk-size'] },
      { namespaces: ['*'], allow: ['*'] },
    ],
  },
});

const pod = (annotations: Readonly<Record<string, string>> = {}, extra: Partial<PodFootprint> = {}): PodFootprint => ({
  ...{ name: 'web', namespace: 'shop', runtimeHandler: '', resources: null, overhead: null, ...extra },
  annotations: Object.fromEntries(Object.entries(annotations).map(([key, value]) => [`infralet.dev/${key}`, value])),
});
const demand = (...of: Parameters<typeof pod>) => machineDemand(pod(...of), config);

describe('a pod’s machine', () => {
  test('without annotations is of the guest image’s architecture and nothing else', () => {
    expect(demand().placement).toEqual({ architecture: 'amd64' });
  });

  test('is what its annotations say', () => {
    const { shape, placement } = demand({
      'memory-request': '3Gi',
      'disk-size': '40Gi',
      'gpu-count': '2',
      'gpu-model': 'A10*',
      'instance-type': 'g5.*, g6.xlarge',
      zone: 'eu-1a,eu-1b',
      market: 'spot-preferred',
      architecture: 'amd64',
    });
    expect(shape.memoryBytes).toBe(3 * GIB + config.machine.overheadMemory);
    expect(shape.diskBytes).toBe(40 * GIB);
    expect(placement).toEqual({
      architecture: 'amd64',
      gpu: { count: 2, model: 'A10*' },
      types: ['g5.*', 'g6.xlarge'],
      zones: ['eu-1a', 'eu-1b'],
      market: 'spot-preferred',
    });
  });

  test('is what the profile of its runtime handler says, where no annotation says otherwise', () => {
    const runtimeHandler = 'vmpod-gpu';
    expect(demand({}, { runtimeHandler })).toMatchObject({
      shape: { diskBytes: 50 * GIB },
      placement: { gpu: { count: 2, model: 'T4' }, types: ['g4dn.*'], zones: ['a', 'b'] },
    });
    const own = demand({ 'gpu-count': '1', zone: 'b', 'disk-size': '20Gi' }, { runtimeHandler });
    expect(own).toMatchObject({
      shape: { diskBytes: 20 * GIB },
      placement: { gpu: { count: 1, model: 'T4' }, types: ['g4dn.*'], zones: ['b'] },
    });
    expect(config.runtimeHandlers).toEqual(['', 'infralet', 'vmpod-spot', 'vmpod-gpu']);
  });

  test('a limit goes before a memory request; small disks are rounded up', () => {
    const resources = { cpuPeriod: '0', cpuQuota: '0', cpuShares: '0', memoryLimitInBytes: String(2 * GIB) };
    expect(demand({ 'memory-request': '1Gi' }, { resources }).shape.memoryBytes).toBe(
      2 * GIB + config.machine.overheadMemory,
    );
    expect(() => demand({ 'memory-request': '3Gi' }, { resources })).toThrow(/web: .*memory-request: it is more than/);
    expect(demand({ 'disk-size': '1' }).shape.diskBytes).toBe(config.machine.minDisk);
    expect(() => demand({ 'disk-size': '900Gi' })).toThrow(/of disk; the largest machine has/);
  });

  test.each([
    ['memory-request', 'lots'],
    ['memory-request', '0'],
    ['memory-request', ''],
    ['disk-size', '-1Gi'],
    ['gpu-count', '0'],
    ['gpu-count', '1.5'],
    ['gpu-count', '65'],
    ['instance-type', ''],
    ['instance-type', 'a;b'],
    ['zone', 'a,,b'],
    ['market', 'Spot'],
    ['architecture', 'x86_64'],
  ])('%s: %j is refused with the names of annotation and pod', (name, value) => {
    expect(() => demand({ [name]: value })).toThrow(
      expect.objectContaining({
        code: 'INVALID_ARGUMENT',
        message: expect.stringContaining(`pod shop/web: annotation infralet.dev/${name}: `),
      }),
    );
  });

  test('a misspelt annotation is refused with the one that is meant; those of others are nobody’s business', () => {
    expect(() => demand({ 'instance-typ': 'm5.large' })).toThrow(
      /no such annotation; did you mean infralet.dev\/instance-type/,
    );
    expect(() => demand({ constructor: 'x' })).toThrow(/no such annotation/);
    expect(demand().placement).toEqual(
      machineDemand({ ...pod(), annotations: { 'example.com/zone': 'x' } }, config).placement,
    );
  });

  test('another architecture than the guest image’s, or a model without a GPU, is refused', () => {
    expect(() => demand({ architecture: 'arm64' })).toThrow(/this node makes amd64 machines only/);
    expect(() => demand({ 'gpu-model': 'T4' })).toThrow(/no effect without infralet.dev\/gpu-count/);
  });
});

describe('the policy', () => {
  test('lets a namespace have what the first entry that names it allows', () => {
    expect(demand({ market: 'spot', 'instance-type': 'm5.*' }, { namespace: 'ci-7' }).placement.market).toBe('spot');
    for (const [namespace, name] of [
      ['ci-7', 'gpu-count'],
      ['poor', 'zone'],
    ] as const) {
      expect(() => demand({ [name]: '1' }, { namespace })).toThrow(
        expect.objectContaining({
          code: 'PERMISSION_DENIED',
          message: expect.stringContaining(`infralet.dev/${name}`),
        }),
      );
    }
    expect(demand({}, { namespace: 'poor', runtimeHandler: 'vmpod-spot' }).placement.market).toBe('spot');
  });

  test('keeps to the price of the pod’s size where nobody says otherwise', () => {
    const usual = configSchema.parse({});
    expect(machineDemand(pod({ zone: 'a', 'disk-size': '20Gi' }), usual).placement.zones).toEqual(['a']);
    for (const costly of ['market', 'instance-type', 'gpu-count', 'gpu-model']) {
      expect(() => machineDemand(pod({ [costly]: 'spot' }), usual)).toThrow(/may not have it/);
    }
  });
});

test('a provider with one kind of machine refuses what it cannot give', () => {
  const local = { name: 'qemu' };
  requirePlaceable(demand({ market: 'spot-preferred' }).placement, local, 'shop/web');
  expect(() => requirePlaceable(demand({ zone: 'a', 'gpu-count': '1' }).placement, local, 'shop/web')).toThrow(
    'pod shop/web asks for a GPU and a zone; the provider qemu has one kind of machine',
  );
});

test('a pod with demands takes machines of a pool with the same demands only', () => {
  const pools = {
    usual: { size: 1, cpuMillis: 4000, memory: '4Gi' },
    spot: { size: 1, runtimeHandlers: ['vmpod-spot'] },
  };
  const profiles = { 'vmpod-spot': { market: 'spot' } };
  const settings = configSchema.parse({
    pools,
    profiles,
    policy: { annotations: [{ namespaces: ['*'], allow: ['*'] }] },
  });
  const byName = new Map(poolClasses(settings, { name: 'fake' }).map((each) => [each.name, each]));
  const takes = (name: string, handler: string, annotations = {}): boolean => {
    const found = byName.get(name);
    if (!found) throw new Error(name);
    return serves(found, machineDemand(pod(annotations, { runtimeHandler: handler }), settings), handler);
  };
  expect(byName.get('usual')?.handlers).toEqual(['', 'infralet']);
  expect(byName.get('spot')?.placement.market).toBe('spot');
  expect(takes('usual', '')).toBe(true);
  expect(takes('usual', '', { market: 'on-demand' })).toBe(true);
  expect(takes('usual', '', { market: 'spot' })).toBe(false);
  expect(takes('usual', '', { zone: 'a' })).toBe(false);
  expect(takes('usual', '', { 'disk-size': '20Gi' })).toBe(false);
  expect(takes('usual', '', { 'memory-request': '3Gi' })).toBe(true);
  expect(takes('spot', 'vmpod-spot')).toBe(true);
  expect(takes('spot', 'vmpod-spot', { 'gpu-count': '1' })).toBe(false);
});

test('the journal keeps the demands; records of old have none', () => {
  const { placement } = demand({ 'gpu-count': '1', zone: 'a' });
  const written: unknown = JSON.parse(JSON.stringify(sandboxRecord({ placement })));
  expect(parseSandboxRecord(written).placement).toEqual(placement);
  const { placement: _, ...old } = sandboxRecord();
  expect(parseSandboxRecord(JSON.parse(JSON.stringify(old))).placement).toEqual({});
});
