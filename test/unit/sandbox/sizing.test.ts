import { describe, expect, test } from 'vitest';
import { configSchema } from '../../../src/config/schema.ts';
import { machineShape, podLimits } from '../../../src/sandbox/sizing.ts';
import { podConfig } from '../../support/sandbox-records.ts';

const machine = configSchema.parse({}).machine;
const MiB = 2 ** 20;

function shape(resources: object, overhead: object = {}) {
  const { linux } = podConfig({ linux: { resources, overhead } });
  return machineShape(linux?.resources ?? null, linux?.overhead ?? null, machine);
}

describe('machineShape', () => {
  test('a pod without limits gets the defaults and the overhead', () => {
    expect(machineShape(null, null, machine)).toEqual({
      cpuMillis: machine.defaultCpuMillis,
      memoryBytes: machine.defaultMemory + machine.overheadMemory,
      diskBytes: machine.disk,
    });
  });

  test('the quota counts before the shares', () => {
    expect(shape({ cpuQuota: '250000', cpuPeriod: '100000', cpuShares: '1024' }).cpuMillis).toBe(2500);
    expect(shape({ cpuShares: '3072' }).cpuMillis).toBe(3000);
  });

  test("the kubelet's least shares mean no request", () => {
    expect(shape({ cpuShares: '2' }).cpuMillis).toBe(machine.defaultCpuMillis);
  });

  test("limit, pod overhead and the machine's own overhead add up", () => {
    const limit = { memoryLimitInBytes: String(1024 * MiB) };
    const overhead = { memoryLimitInBytes: String(64 * MiB) };
    expect(shape(limit, overhead).memoryBytes).toBe(1088 * MiB + machine.overheadMemory);
  });

  test('small pods get the smallest machine, too large ones are refused with the setting to change', () => {
    expect(shape({ memoryLimitInBytes: '1', cpuQuota: '1000', cpuPeriod: '100000' })).toMatchObject({
      cpuMillis: machine.minCpuMillis,
      memoryBytes: machine.minMemory,
    });
    expect(() => shape({ memoryLimitInBytes: String(2 ** 40) })).toThrow(/largest machine/);
    expect(() => shape({ cpuQuota: '100000000', cpuPeriod: '100000' })).toThrow(/largest machine/);
  });
});

describe('podLimits', () => {
  function limits(resources: object, overhead: object = {}) {
    const { linux } = podConfig({ linux: { resources, overhead } });
    const facts = [linux?.resources ?? null, linux?.overhead ?? null] as const;
    return podLimits(...facts, machineShape(...facts, machine), machine);
  }

  test('are those of the pod, with the overhead of its class, whatever the size of the machine', () => {
    const resources = { memoryLimitInBytes: String(20 * MiB), cpuQuota: '30000', cpuPeriod: '100000' };
    expect(limits(resources)).toEqual({ memoryBytes: 20 * MiB, cpuQuota: 30_000, cpuPeriod: 100_000, cpuShares: 0 });
    const overhead = { memoryLimitInBytes: String(MiB), cpuQuota: '10000', cpuPeriod: '100000' };
    expect(limits(resources, overhead)).toEqual({
      memoryBytes: 21 * MiB,
      cpuQuota: 40_000,
      cpuPeriod: 100_000,
      cpuShares: 0,
    });
  });

  test('without limits are what the machine was made for', () => {
    expect(limits({})).toEqual({ memoryBytes: machine.defaultMemory, cpuQuota: -1, cpuPeriod: 0, cpuShares: 0 });
  });
});
