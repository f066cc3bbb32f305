/** Pod networks with the real CNI plugins, real namespaces, real frames. Needs root. */

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, test } from 'vitest';
import { newSandboxId, type SandboxId } from '../../src/base/ids.ts';
import { run } from '../../src/base/process.ts';
import type { CniNetwork } from '../../src/network/cni-network.ts';
import type { PodNetworkResult, PodNetworkSpec } from '../../src/network/pod-network.ts';
import { bridgePlugin, cniNetwork, conflist, PORTMAP_PLUGIN } from '../support/cni.ts';
import { removeBridge, removeSharedLeftovers } from '../support/host-leftovers.ts';
import { podWire } from '../support/pod-wire.ts';
import { traffic } from '../support/traffic.ts';

const signal = AbortSignal.timeout(600_000);
const BRIDGE = 'inftest0';
const NETWORK = 'infralet-test';
const sh = async (command: string): Promise<string> => await run('sh', ['-c', command], { signal, timeoutMs: 20_000 });

let dir = '';
let network: CniNetwork;
/** Sandboxes made here. */
const used: SandboxId[] = [];
/** Names and addresses that only this test uses. */
const OURS = [BRIDGE, 'infout', 'infralet-test', '10.199.0.', 'fd42:99', '18099'];

/** What this test may leave on the node; other daemons may have pods of their own here. */
async function hostState(): Promise<string> {
  const parts = await Promise.all([
    sh('ip -br link'),
    sh('ls /run/netns 2> /dev/null || true'),
    sh('iptables-save; ip6tables-save'),
    sh('ip route'),
  ]);
  const ours = [...OURS, ...used.map((id) => id.slice(0, 12))];
  return parts
    .join('\n')
    .split('\n')
    .filter((line) => ours.some((word) => line.includes(word)))
    .join('\n');
}

const bridge = bridgePlugin(BRIDGE, '10.199.0.0/24', 'fd42:99::/64');

function spec(
  portMappings: PodNetworkSpec['portMappings'] = [],
  sandboxId: SandboxId = newSandboxId(),
): PodNetworkSpec {
  return { sandboxId, podName: 'web', podNamespace: 'default', podUid: 'uid-1', portMappings };
}

/** A plugin that writes down how it is called and does what the test says. */
async function recorder(script = ''): Promise<() => Promise<readonly string[]>> {
  const log = join(dir, 'calls');
  await writeFile(
    join(dir, 'bin', 'recorder'),
    `#!/bin/sh\ninput=$(cat)\necho "$CNI_COMMAND" >> ${log}\n${script}\n[ "$CNI_COMMAND" = ADD ] && echo "$input" | sed 's/.*"prevResult"://;s/}$//'\nexit 0\n`,
    { mode: 0o755 },
  );
  await writeFile(join(dir, 'conf', '10-test.conflist'), conflist(NETWORK, [bridge, { type: 'recorder' }]));
  return async () => (await readFile(log, 'utf8').catch(() => '')).split('\n').filter((line) => line !== '');
}

const podIp = (result: PodNetworkResult): string => result.addresses[0]?.address.split('/')[0] ?? '';

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'infralet-net-'));
  await sh(`mkdir ${dir}/conf ${dir}/bin`);
  await writeFile(join(dir, 'conf', '10-test.conflist'), conflist(NETWORK, [bridge, PORTMAP_PLUGIN]));
  network = cniNetwork(dir);
});
afterEach(async () => {
  for (const sandboxId of await network.list(signal)) await network.remove(spec([], sandboxId), signal);
  await rm(dir, { recursive: true, force: true });
});
afterAll(async () => {
  await removeBridge(BRIDGE, signal);
  await removeSharedLeftovers(signal);
  expect(await hostState()).toBe('');
});

describe('pod network', () => {
  test('is ready with a configuration and its plugins, and says what is missing', async () => {
    expect(await network.ready(signal)).toEqual({ ok: true, reason: '' });
    await writeFile(join(dir, 'conf', '10-test.conflist'), conflist(NETWORK, [{ type: 'no-such-plugin' }]));
    expect((await network.ready(signal)).reason).toMatch(/no-such-plugin is not in/);
    await rm(join(dir, 'conf', '10-test.conflist'));
    expect((await network.ready(signal)).reason).toMatch(/no CNI configuration/);
  });

  test('ADD, CHECK and DEL: addresses, MAC, MTU and routes as the kernel has them, then nothing', async () => {
    const pod = spec();
    const result = await network.add(pod, signal);
    const name = result.netns.replace('/run/netns/', '');
    const [link] = JSON.parse(await sh(`ip -n ${name} -j addr show dev eth0`)) as [
      { address: string; mtu: number; addr_info: { local: string; prefixlen: number; scope: string }[] },
    ];
    expect(result.mac).toBe(link.address);
    expect(result.mtu).toBe(link.mtu);
    expect(result.addresses.map(({ address }) => address).sort()).toEqual(
      link.addr_info
        .filter(({ scope }) => scope === 'global')
        .map(({ local, prefixlen }) => `${local}/${prefixlen}`)
        .sort(),
    );
    expect(result.routes).toContainEqual({ destination: '0.0.0.0/0', gateway: '10.199.0.1' });
    expect(result.routes).toContainEqual({ destination: '::/0', gateway: 'fd42:99::1' });
    await network.check(pod, result, signal);
    expect(await network.list(signal)).toEqual([pod.sandboxId]);
    const [main] = result.addresses;
    await sh(`ip -n ${name} addr del ${main?.address} dev eth0`);
    await expect(network.check(pod, result, signal)).rejects.toThrow(/CNI CHECK by plugin/);
    await sh(`ip -n ${name} addr add ${main?.address} dev eth0`);
    await network.remove(pod, signal);
    expect(await network.list(signal)).toEqual([]);
    expect(await readdir(join(dir, 'cache', 'networks', 'infralet-test'))).not.toContain(podIp(result));
    await removeBridge(BRIDGE, signal);
    await removeSharedLeftovers(signal);
    expect(await hostState()).toBe('');
    await network.remove(pod, signal);
  });

  test('a joined machine talks to node, pod and outside, and is reached through its host port', async () => {
    await using one = await podWire('t1');
    await using two = await podWire('t2');
    const podOne = spec([{ hostPort: 18_099, containerPort: 8080, protocol: 'tcp', hostIp: '' }]);
    const podTwo = spec();
    const [first, second] = [await network.add(podOne, signal), await network.add(podTwo, signal)];
    await network.join(podOne, first, { kind: 'tap', device: one.tap }, signal);
    await network.join(podOne, first, { kind: 'tap', device: one.tap }, signal);
    await network.join(podTwo, second, { kind: 'tap', device: two.tap }, signal);
    await one.configure(first);
    await two.configure(second);
    // Not the pod with the host port: portmap's CHECK (1.1) looks for its IPv4 rules among the IPv6 ones and fails.
    await network.check(podTwo, second, signal);

    const size = 8 * 2 ** 20;
    await using server = await traffic.serve(one.guest, 8080);
    // node → pod, IPv4 and IPv6; pod → pod; node → host port.
    expect((await traffic.fetch(undefined, podIp(first), 8080, size)).digest).toBe(traffic.digest(size));
    const six = first.addresses.find(({ address }) => address.includes(':'))?.address.split('/')[0] ?? '';
    expect((await traffic.fetch(undefined, six, 8080, size)).digest).toBe(traffic.digest(size));
    const seen = await traffic.fetch(two.guest, podIp(first), 8080, size);
    expect(seen).toEqual({ digest: traffic.digest(size), from: podIp(second) });
    expect((await traffic.fetch(undefined, '127.0.0.1', 18_099, size)).digest).toBe(traffic.digest(size));
    expect(server.alive()).toBe(true);

    // Only the machine answers for the pod's address: with its link down, the namespace's own stack stays silent.
    await sh(`ip -n ${one.guest} link set ingt1 down`);
    await sh(`ip neigh flush dev ${BRIDGE}`);
    await expect(traffic.fetch(undefined, podIp(first), 8080, 1)).rejects.toThrow(/EHOSTUNREACH/);

    // pod → outside: what leaves the node carries the node's address.
    await using outside = await outsideHost();
    const out = await traffic.fetch(two.guest, outside.address, 8081, size);
    expect(out).toEqual({ digest: traffic.digest(size), from: outside.gateway });

    await network.remove(podOne, signal);
    await network.remove(podTwo, signal);
    expect(await sh('iptables-save -t nat')).not.toContain('18099');
  });

  test('DEL runs once: not again after success, and after a crash only for what is left', async () => {
    const calls = await recorder();
    const pod = spec();
    await network.add(pod, signal);
    await network.remove(pod, signal);
    await network.remove(pod, signal);
    expect(await calls()).toEqual(['ADD', 'DEL']);

    // The bridge plugin fails after the recorder's DEL: the next try goes on where this one ended.
    await network.add(pod, signal);
    const marker = join(dir, 'network', `${pod.sandboxId}.json`);
    const noted = JSON.parse(await readFile(marker, 'utf8')) as { state: { result: unknown } };
    await writeFile(
      marker,
      JSON.stringify({ ...noted, state: { kind: 'deleting', result: noted.state.result, remaining: 1 } }),
    );
    const restarted = cniNetwork(dir);
    expect(await restarted.list(signal)).toEqual([pod.sandboxId]);
    await restarted.remove(pod, signal);
    expect(await calls()).toEqual(['ADD', 'DEL', 'ADD']);
    expect(await restarted.list(signal)).toEqual([]);
  });

  test('an ADD repeated after a crash first takes back the lost one', async () => {
    const calls = await recorder();
    const pod = spec();
    const first = await network.add(pod, signal);
    const second = await cniNetwork(dir).add(pod, signal);
    expect(await calls()).toEqual(['ADD', 'DEL', 'ADD']);
    expect(second.netns).toBe(first.netns);
    const held = (await readdir(join(dir, 'cache', 'networks', 'infralet-test'))).filter((name) =>
      name.startsWith('10.'),
    );
    expect(held).toEqual([podIp(second)]);
  });

  test('a failing plugin: its own words in the error, nothing left behind', async () => {
    const calls = await recorder(
      `[ "$CNI_COMMAND" = ADD ] && { echo '{"cniVersion":"1.0.0","code":7,"msg":"no such vlan","details":"42"}'; exit 1; }`,
    );
    const pod = spec();
    await expect(network.add(pod, signal)).rejects.toThrow(
      'CNI ADD by plugin recorder of network infralet-test failed: no such vlan: 42',
    );
    expect(await calls()).toEqual(['ADD', 'DEL']);
    expect(await network.list(signal)).toEqual([]);
    await removeBridge(BRIDGE, signal);
    await removeSharedLeftovers(signal);
    expect(await hostState()).toBe('');
  });

  test('a namespace that somebody removed leaves no rule and no address behind', async () => {
    const pod = spec([{ hostPort: 18_099, containerPort: 80, protocol: 'tcp', hostIp: '' }]);
    const result = await network.add(pod, signal);
    await sh(`ip netns del ${result.netns.replace('/run/netns/', '')}`);
    await expect(network.check(pod, result, signal)).rejects.toThrow(/has no network on this node/);
    await network.remove(pod, signal);
    await removeBridge(BRIDGE, signal);
    await removeSharedLeftovers(signal);
    expect(await hostState()).toBe('');
    expect(await readdir(join(dir, 'cache', 'networks', 'infralet-test'))).not.toContain(podIp(result));
  });

  test('a broken record is named and does not stop other sandboxes', async () => {
    const pod = spec();
    await network.add(pod, signal);
    const broken = newSandboxId();
    await writeFile(join(dir, 'network', `${broken}.json`), 'garbage');
    expect([...(await network.list(signal))].sort()).toEqual([pod.sandboxId, broken].sort());
    await expect(network.remove(spec([], broken), signal)).rejects.toThrow(/unreadable/);
    await network.remove(pod, signal);
    await rm(join(dir, 'network', `${broken}.json`));
  });

  test('twenty pods at once get twenty addresses', async () => {
    const pods = Array.from({ length: 20 }, () => spec());
    const results = await Promise.all(pods.map(async (pod) => await network.add(pod, signal)));
    expect(new Set(results.map(podIp)).size).toBe(20);
    await Promise.all(pods.map(async (pod) => await network.remove(pod, signal)));
    await removeBridge(BRIDGE, signal);
    await removeSharedLeftovers(signal);
    expect(await hostState()).toBe('');
  });
});

/** A host beyond the node: a namespace on a veth pair with a server in it. */
async function outsideHost(): Promise<AsyncDisposable & { readonly address: string; readonly gateway: string }> {
  const [name, address, gateway] = ['infralet-test-out', '10.198.0.2', '10.198.0.1'];
  await sh(
    `ip netns add ${name} && ip link add infout0 type veth peer name eth0 netns ${name} &&` +
      ` ip addr add ${gateway}/30 dev infout0 && ip link set infout0 up &&` +
      ` ip -n ${name} addr add ${address}/30 dev eth0 && ip -n ${name} link set eth0 up && ip -n ${name} link set lo up`,
  );
  const server = await traffic.serve(name, 8081);
  return {
    address,
    gateway,
    [Symbol.asyncDispose]: async () => {
      await server[Symbol.asyncDispose]();
      await sh(`ip netns del ${name}`);
    },
  };
}
