/** What is added to the specification that the guest's containerd makes of a container. */
import { describe, expect, test } from 'vitest';
import { completeSpec, needsCompletion, parseSpec, specUser } from '../../../src/container/spec.ts';
import type { ContainerConfig } from '../../../src/gen/runtime/v1/ContainerConfig.ts';
import { containerCodec } from '../../../src/rpc/codecs.ts';
import { loadCri } from '../../../src/rpc/load.ts';

const codec = containerCodec(loadCri());
/** With all defaults, as a request arrives. */
const config = (part: ContainerConfig) => codec.decode(codec.encode(part as never));

const bind = (destination: string, ...options: string[]) => ({
  destination,
  type: 'bind',
  source: '/scratch/volumes/x',
  options: ['rbind', ...options],
});
const given = parseSpec(
  JSON.stringify({
    ociVersion: '1.1.0',
    process: {
      args: ['/bin/sh'],
      user: { uid: 1000, gid: 2000, additionalGids: [1000, 2000, 50_000] },
      capabilities: {
        bounding: ['CAP_CHOWN', 'CAP_NET_RAW'],
        effective: ['CAP_CHOWN'],
        permitted: ['CAP_CHOWN'],
      },
    },
    mounts: [bind('/a', 'rprivate', 'ro'), bind('/b/', 'rprivate', 'rw'), bind('/c', 'ro')],
    linux: { cgroupsPath: '/pod/1' },
  }),
);

const complete = (part: ContainerConfig) => completeSpec(given, config(part));

describe('a specification', () => {
  test('stays the very same when containerd knew all that was asked for', () => {
    const asked = { mounts: [{ containerPath: '/a', hostPath: '/x', readonly: true }], linux: { securityContext: {} } };
    expect(complete(asked)).toBe(given);
    expect(complete({})).toBe(given);
    expect([asked, {}].map((part) => needsCompletion(config(part)))).toEqual([false, false]);
  });

  test('Strict: only the groups of the request and the primary one', () => {
    const policy = { supplementalGroups: ['7', '2000', '5'], supplementalGroupsPolicy: 'Strict' as const };
    const spec = complete({ linux: { securityContext: policy } });
    expect(needsCompletion(config({ linux: { securityContext: policy } }))).toBe(true);
    expect(specUser(spec)).toEqual({ uid: '1000', gid: '2000', supplementalGroups: ['5', '7', '2000'] });
    // All else is as it was.
    expect({ ...spec, process: { ...spec.process, user: given.process.user } }).toEqual(given);
    expect(specUser(given).supplementalGroups).toContain('50000');
  });

  test('ambient capabilities are permitted, inheritable and in the bounding set, too', () => {
    const capabilities = { addAmbientCapabilities: ['net_bind_service', 'CAP_CHOWN'] };
    const sets = complete({ linux: { securityContext: { capabilities } } }).process.capabilities;
    const both = ['CAP_NET_BIND_SERVICE', 'CAP_CHOWN'];
    expect(sets?.ambient).toEqual(both);
    for (const set of [sets?.bounding, sets?.effective, sets?.permitted, sets?.inheritable]) {
      expect(set).toEqual(expect.arrayContaining(both));
    }
    expect(sets?.bounding).toContain('CAP_NET_RAW');
    expect(sets?.ambient).not.toContain('CAP_NET_RAW');
  });

  test('mounts: read-only all the way down, mapped owners, options; others are left alone', () => {
    const mapping = [{ containerId: 0, hostId: 65_536, length: 1000 }];
    const spec = complete({
      mounts: [
        { containerPath: '/a', hostPath: '/x', readonly: true, recursiveReadOnly: true },
        { containerPath: '/b', hostPath: '/y', uidMappings: mapping, gidMappings: mapping, mountOptions: ['noexec'] },
        { containerPath: '/c', hostPath: '/z', readonly: true },
      ],
    });
    const oci = [{ containerID: 0, hostID: 65_536, size: 1000 }];
    expect(spec.mounts?.map(({ options }) => options)).toEqual([
      ['rbind', 'rprivate', 'rro'],
      ['rbind', 'rprivate', 'rw', 'noexec'],
      ['rbind', 'ro'],
    ]);
    expect(spec.mounts?.[1]).toMatchObject({ uidMappings: oci, gidMappings: oci });
    expect(spec.mounts?.[2]).toBe(given.mounts?.[2]);
  });

  test.each([
    ['not JSON', '{'],
    ['no object', '[]'],
    ['a user that is none', JSON.stringify({ process: { user: { uid: -1, gid: 0 } } })],
    [
      'too many groups',
      JSON.stringify({
        process: { user: { uid: 0, gid: 0, additionalGids: Array.from({ length: 70_000 }, () => 1) } },
      }),
    ],
    ['too much of it', JSON.stringify({ process: { user: { uid: 0, gid: 0 }, x: 'x'.repeat(5_000_000) } })],
  ])('of a hostile guest is refused: %s', (_what, text) => {
    expect(() => parseSpec(text)).toThrow(expect.objectContaining({ code: 'DATA_LOSS' }));
  });
});
