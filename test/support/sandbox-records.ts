/** Factories for sandbox records and pod configurations, in the words of the domain. */
import { newSandboxId } from '../../src/base/ids.ts';
import type { PodSandboxConfig__Output } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import { loadCri } from '../../src/rpc/load.ts';
import type { SandboxRecord } from '../../src/sandbox/record.ts';

export function sandboxRecord(change: Partial<SandboxRecord> = {}): SandboxRecord {
  return {
    id: newSandboxId(),
    pool: '',
    podUid: 'uid-1',
    podName: 'web',
    podNamespace: 'default',
    attempt: 0,
    runtimeHandler: '',
    createdAt: 1000,
    state: 'planned',
    wanted: 'ready',
    listed: false,
    reason: '',
    lastError: '',
    launchToken: 'launch-1',
    enrolToken: 'enrol-1',
    shape: { cpuMillis: 1000, memoryBytes: 2 ** 28, diskBytes: 2 ** 30 },
    placement: {},
    resize: false,
    machine: 'none',
    enrolled: false,
    rehearsed: true,
    power: 'on',
    image: '',
    network: 'none',
    joined: false,
    guestSandboxId: '',
    guestStopped: false,
    timeline: {},
    ...change,
  };
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
