/** Pure parts of pod networks. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { newSandboxId } from '../../src/base/ids.ts';
import { type CniCall, findPlugin, pluginInput } from '../../src/network/cni.ts';
import { EMBEDDED_CONF_DIR, loadConflist } from '../../src/network/conflist.ts';
import { words } from '../../src/network/iptables.ts';
import { netnsName } from '../../src/network/netns.ts';
import { parseResult, podNetworkResult } from '../../src/network/result.ts';
import { MarkerStore } from '../../src/network/store.ts';

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'infralet-unit-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

const write = async (name: string, content: unknown): Promise<void> =>
  await writeFile(join(dir, name), typeof content === 'string' ? content : JSON.stringify(content));
const plugins = [{ type: 'bridge', ipam: { type: 'host-local' } }];

describe('configuration', () => {
  test('is the first *.conflist by name', async () => {
    await write('20-b.conflist', { cniVersion: '1.0.0', name: 'b', plugins });
    await write('10-a.conflist', { cniVersion: '1.0.0', name: 'a', plugins });
    await write('00-c.conf', { cniVersion: '1.0.0', name: 'c', type: 'bridge' });
    expect((await loadConflist(dir, '/cache')).name).toBe('a');
  });

  test('of Infralet itself is found by its name, and keeps its addresses where the daemon says', async () => {
    const embedded = await loadConflist('embedded', '/cache');
    expect(embedded).toEqual(await loadConflist(EMBEDDED_CONF_DIR, '/cache'));
    expect(embedded.plugins.map(({ type }) => type)).toEqual(['bridge', 'portmap']);
    expect(embedded.plugins[0]?.ipam).toMatchObject({ type: 'host-local', dataDir: '/cache/networks' });
  });

  test('that says where addresses are kept is obeyed', async () => {
    const own = [
      { type: 'bridge', ipam: { type: 'host-local', dataDir: '/own' } },
      { type: 'x', ipam: { type: 'dhcp' } },
    ];
    await write('1.conflist', { cniVersion: '0.4.0', name: 'n', plugins: own });
    const [first, second] = (await loadConflist(dir, '/cache')).plugins;
    expect(first?.ipam).toEqual({ type: 'host-local', dataDir: '/own' });
    expect(second?.ipam).toEqual({ type: 'dhcp' });
  });

  test.each([
    ['nothing', undefined, /there is no CNI configuration/],
    ['no JSON', '{', /cannot be used/],
    ['an ancient version', { cniVersion: '0.2.0', name: 'n', plugins }, /must be one of 0\.3\.0/],
    [
      'a plugin that is a path',
      { cniVersion: '1.0.0', name: 'n', plugins: [{ type: '../../bin/sh' }] },
      /plugins\[0\]\.type/,
    ],
    ['no plugin', { cniVersion: '1.0.0', name: 'n', plugins: [] }, /plugins/],
  ])('of %s is refused', async (_, content, message) => {
    if (content !== undefined) await write('1.conflist', content);
    await expect(loadConflist(dir, '/cache')).rejects.toThrow(message);
  });
});

describe('plugin input', () => {
  const call = async (): Promise<CniCall> => {
    const chain = [
      { type: 'bridge', bridge: 'b0' },
      { type: 'portmap', capabilities: { portMappings: true, bandwidth: false } },
    ];
    await write('1.conflist', { cniVersion: '1.0.0', name: 'n', plugins: chain });
    return {
      conflist: await loadConflist(dir, '/cache'),
      containerId: 'c',
      netns: '/run/netns/x',
      ifName: 'eth0',
      args: '',
      capabilities: { portMappings: [{ hostPort: 80 }], bandwidth: { ingressRate: 1 } },
      binDirs: [dir],
      timeoutMs: 1000,
    };
  };

  test('has the capabilities that the plugin declares, and the result of the one before', async () => {
    const made = await call();
    const [bridge, portmap] = made.conflist.plugins;
    const previous = parseResult('x', '{"ips":[{"address":"10.0.0.2/24"}],"strange":1}');
    expect(bridge && JSON.parse(pluginInput(made, bridge, undefined))).toEqual({
      cniVersion: '1.0.0',
      name: 'n',
      type: 'bridge',
      bridge: 'b0',
    });
    expect(portmap && JSON.parse(pluginInput(made, portmap, previous))).toEqual({
      cniVersion: '1.0.0',
      name: 'n',
      type: 'portmap',
      runtimeConfig: { portMappings: [{ hostPort: 80 }] },
      prevResult: { interfaces: [], ips: [{ address: '10.0.0.2/24' }], routes: [], strange: 1 },
    });
  });

  test('a plugin is looked for in all directories', async () => {
    await writeFile(join(dir, 'there'), '', { mode: 0o755 });
    await writeFile(join(dir, 'not-executable'), '', { mode: 0o644 });
    expect(await findPlugin('there', ['/nowhere', dir])).toBe(join(dir, 'there'));
    await expect(findPlugin('absent', ['/nowhere', dir])).rejects.toThrow(/the CNI plugin absent is not in/);
  });
});

describe('results', () => {
  const link = { mac: '0a:58:0a:f4:00:02', mtu: 1400 };
  const bridged = {
    interfaces: [{ name: 'br0' }, { name: 'veth1' }, { name: 'eth0', mac: 'x', sandbox: '/run/netns/x' }],
    ips: [
      { address: '10.0.0.2/24', gateway: '10.0.0.1', interface: 2 },
      { address: 'fd00::2/64', gateway: 'fd00::1', interface: 2 },
      { address: '192.168.0.1/24', interface: 0 },
    ],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }, { dst: '10.9.0.0/16', gw: '10.0.0.9' }],
  };

  test('are reduced to what the pod’s own interface has', () => {
    const result = parseResult('bridge', JSON.stringify(bridged));
    expect(podNetworkResult(result, '/run/netns/x', 'eth0', link)).toEqual({
      netns: '/run/netns/x',
      ...link,
      addresses: [
        { address: '10.0.0.2/24', gateway: '10.0.0.1' },
        { address: 'fd00::2/64', gateway: 'fd00::1' },
      ],
      routes: [
        { destination: '0.0.0.0/0', gateway: '10.0.0.1' },
        { destination: '::/0', gateway: 'fd00::1' },
        { destination: '10.9.0.0/16', gateway: '10.0.0.9' },
      ],
    });
  });

  test('without an address are an error', () => {
    const result = parseResult('x', '{"interfaces":[{"name":"eth0","sandbox":"s"}]}');
    expect(() => podNetworkResult(result, 'n', 'eth0', link)).toThrow(/gave no address to eth0/);
  });

  test.each([
    '',
    'null',
    '[]',
    '{"ips":[{"address":"10.0.0.2"}]}',
    '{"ips":[{"address":"10.0.0.2/33"}]}',
    '{"routes":[{"dst":"x"}]}',
  ])('that cannot be read are an error that names the plugin: %s', (text) => {
    expect(() => parseResult('weird', text)).toThrow(/the CNI plugin weird returned a result that cannot be read/);
  });
});

describe('names', () => {
  test('of namespaces follow from the sandbox', () => {
    const id = newSandboxId();
    expect(netnsName(id)).toBe(`infralet-${id.slice(0, 12)}`);
  });

  test('rules are split into words as a shell would', () => {
    expect(words('-A X -m comment --comment "name: \\"n\\" id: \\"i\\"" -j Y')).toEqual([
      ...['-A', 'X', '-m', 'comment', '--comment', 'name: "n" id: "i"', '-j', 'Y'],
    ]);
    fc.assert(
      fc.property(fc.array(fc.stringMatching(/^[ "\\a-z0-9.-]+$/), { minLength: 1 }), (parts) => {
        const printed = parts.map((part) => `"${part.replace(/["\\]/g, '\\$&')}"`).join(' ');
        expect(words(printed)).toEqual(parts);
      }),
    );
  });
});

describe('notes', () => {
  test('come back, are listed, and go', async () => {
    const store = new MarkerStore(join(dir, 'network'));
    const id = newSandboxId();
    expect(await store.list()).toEqual([]);
    expect(await store.read(id)).toBeUndefined();
    await store.remove(id);
    await write('1.conflist', { cniVersion: '1.0.0', name: 'n', plugins });
    const conflist = await loadConflist(dir, '/cache');
    const result = parseResult('x', '{"ips":[{"address":"10.0.0.2/24"}],"dns":{"a":[1]}}');
    const note = {
      version: 1,
      netns: 'infralet-x',
      conflist,
      args: 'a=b',
      capabilities: { portMappings: [] },
      state: { kind: 'deleting', result, remaining: 1 },
    } as const;
    await store.write(id, note);
    expect(await store.read(id)).toEqual(note);
    expect(await store.list()).toEqual([id]);
    // A daemon that was killed while it wrote.
    const other = newSandboxId();
    await writeFile(join(dir, 'network', `${other}.json.0123456789ab.tmp`), '{"version"');
    expect((await store.list()).toSorted()).toEqual([id, other].toSorted());
    await store.remove(other);
    await store.remove(id);
    expect(await readdir(join(dir, 'network'))).toEqual([]);
  });
});
