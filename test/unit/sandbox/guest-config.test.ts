import { describe, expect, test } from 'vitest';
import { guestCniConfig, guestSandboxConfig, parseResolvConf } from '../../../src/sandbox/guest-config.ts';
import { podConfig } from '../../support/sandbox-records.ts';

const node = { hostname: 'node-1', dns: { servers: ['192.0.2.53'], searches: [], options: [] } };

describe('guestSandboxConfig', () => {
  test('node facts stay on the node, what the pod sees goes in', () => {
    const config = guestSandboxConfig(
      podConfig({
        hostname: 'web-0',
        logDirectory: '/var/log/pods/x',
        labels: { app: 'web' },
        annotations: { secret: 'of the tenant' },
        portMappings: [{ hostPort: 80, containerPort: 80 }],
        dnsConfig: { servers: ['192.0.2.1'], searches: ['svc.local'], options: ['ndots:5'] },
        linux: { sysctls: { 'net.core.somaxconn': '1024' }, cgroupParent: '/kubepods/x' },
      }),
      node,
    );
    expect(config).toMatchObject({
      hostname: 'web-0',
      portMappings: [],
      dnsConfig: { servers: ['192.0.2.1'], searches: ['svc.local'], options: ['ndots:5'] },
      linux: { sysctls: { 'net.core.somaxconn': '1024' } },
    });
    expect(JSON.stringify(config)).not.toMatch(/kubepods|\/var\/log\/pods|secret|"app"/);
  });

  test('a pod without DNS or host name of its own gets those of the node', () => {
    expect(guestSandboxConfig(podConfig(), node)).toMatchObject({ hostname: 'node-1', dnsConfig: node.dns });
  });

  test('no pod ever shares the namespace of the management NIC', () => {
    const config = podConfig({ linux: { securityContext: { namespaceOptions: { network: 'NODE', pid: 'NODE' } } } });
    expect(guestSandboxConfig(config, node).linux?.securityContext?.namespaceOptions).toMatchObject({
      network: 'POD',
      pid: 'NODE',
    });
  });
});

test('guestCniConfig carries addresses and routes of the node, and finds the NIC by its MAC', () => {
  const text = guestCniConfig({
    netns: '/run/netns/x',
    mac: '0a:58:0a:f4:00:05',
    mtu: 1450,
    addresses: [{ address: '10.244.0.5/24', gateway: '10.244.0.1' }],
    routes: [{ destination: '0.0.0.0/0', gateway: undefined }],
  });
  expect(JSON.parse(text).plugins).toEqual([
    expect.objectContaining({
      type: 'host-device',
      hwaddr: '0a:58:0a:f4:00:05',
      ipam: {
        type: 'static',
        addresses: [{ address: '10.244.0.5/24', gateway: '10.244.0.1' }],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    }),
  ]);
});

test('parseResolvConf reads servers, the last search line and options, and no comments', () => {
  expect(
    parseResolvConf(
      '# made by hand\nnameserver 192.0.2.1\nnameserver 192.0.2.2 # second\nsearch a b\nsearch c\noptions ndots:2 edns0\n',
    ),
  ).toEqual({ servers: ['192.0.2.1', '192.0.2.2'], searches: ['c'], options: ['ndots:2', 'edns0'] });
});
