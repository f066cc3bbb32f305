/** Factories for sandbox records and pod configurations, in the words of the domain. */
import type { PodSandboxConfig__Output } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import { loadCri } from '../../src/rpc/load.ts';
import { newRecord, podFacts } from '../../src/sandbox/new-record.ts';
import type { SandboxRecord } from '../../src/sandbox/record.ts';

export function sandboxRecord(change: Partial<SandboxRecord> = {}): SandboxRecord {
  const facts = podFacts({ uid: 'uid-1', name: 'web', namespace: 'default', attempt: 0 }, '', 1000);
  const shape = { cpuMillis: 1000, memoryBytes: 2 ** 28, diskBytes: 2 ** 30 };
  const record = newRecord(facts, { cluster: 'default', pool: '', enrolToken: 'enrol-1', shape, placement: {} });
  return { ...record, timeline: {}, ...change };
}

const codec = loadCri().RuntimeService.service.RunPodSandbox;

/** A complete configuration, as it comes off the wire, with what the test names. */
export function podConfig(
  change: Parameters<typeof codec.requestSerialize>[0]['config'] = {},
): PodSandboxConfig__Output {
  const bytes = codec.requestSerialize({
    config: { metadata: { name: 'web', uid: 'uid-1', namespace: 'default', attempt: 0 }, ...change },
  });
  const { config } = codec.requestDeserialize(bytes);
  if (!config) throw new Error('no config');
  return config;
}
