import { expect, test } from 'vitest';
import { hostPorts, requireHostPorts } from '../../../src/sandbox/host-ports.ts';
import { podConfig } from '../../support/sandbox-records.ts';

const portMappings = [
  { containerPort: 80, hostPort: 8080, hostIp: '127.0.0.1' },
  { protocol: 'UDP', containerPort: 53, hostPort: 0 },
] as const;

test('ports without a host port stay inside the pod', () => {
  expect(hostPorts(podConfig({ portMappings: [...portMappings] }))).toEqual([
    { hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1' },
  ]);
});

test('a hostNetwork pod has all its declared ports on the node', () => {
  const linux = { securityContext: { namespaceOptions: { network: 'NODE' as const } } };
  expect(hostPorts(podConfig({ portMappings: [...portMappings], linux }))).toEqual([
    { hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIp: '127.0.0.1' },
    { hostPort: 53, containerPort: 53, protocol: 'udp', hostIp: '' },
  ]);
});

test('where the node has no part in the network, a port of the node is refused and told', () => {
  const asks = podConfig({ portMappings: [...portMappings] });
  expect(() => requireHostPorts(asks, { directPods: true })).toThrow(/port 8080 of the node.*the cloud's own/);
  requireHostPorts(asks, {});
  requireHostPorts(podConfig({ portMappings: [portMappings[1]] }), { directPods: true });
});
