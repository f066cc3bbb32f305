/** The pod link to machines elsewhere: real CNI and VXLAN, the real agent in a namespace that plays the machine. Needs root. */

import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { newSandboxId, type SandboxId } from '../../src/base/ids.ts';
import { run } from '../../src/base/process.ts';
import { until } from '../../src/base/time.ts';
import type { CniNetwork } from '../../src/network/cni-network.ts';
import type { PodNetworkResult, PodNetworkSpec, VxlanLink } from '../../src/network/pod-network.ts';
import { AgentWorld } from '../support/agent/machine.ts';
import { bridgePlugin, cniNetwork, conflist, PORTMAP_PLUGIN } from '../support/cni.ts';
import { removeBridge, removeSharedLeftovers } from '../support/host-leftovers.ts';
import { endChild } from '../support/pod-wire.ts';
import { ofIpv6, type RemoteMachine, remoteMachine } from '../support/remote-machine.ts';
import { traffic } from '../support/traffic.ts';
import { type InnerDatagram, vxlanPacket } from '../support/vxlan-frame.ts';

const signal = AbortSignal.timeout(600_000);
const BRIDGE = 'infvxbr0';
const HOST_PORT = 18_097;
const sh = async (command: string): Promise<string> => await run('sh', ['-c', command], { signal, timeoutMs: 20_000 });

let dir = '';
let network: CniNetwork;
let world: AgentWorld;

function spec(portMappings: PodNetworkSpec['portMappings'] = [], sandboxId = newSandboxId()): PodNetworkSpec {
  return { sandboxId, podName: 'web', podNamespace: 'default', podUid: 'uid-1', portMappings };
}

const podIp = (result: PodNetworkResult): string => result.addresses[0]?.address.split('/')[0] ?? '';
const netnsOf = (result: PodNetworkResult): string => result.netns.replace('/run/netns/', '');

async function linked(
  machine: RemoteMachine,
  pod: PodNetworkSpec,
  address: string = machine.address[0],
): Promise<readonly [PodNetworkResult, VxlanLink]> {
  const result = await network.add(pod, signal);
  const link = await network.join(pod, result, { kind: 'vxlan', address }, signal);
  if (!link) throw new Error('there is no link');
  await machine.configure(result, link);
  return [result, link];
}

async function tunnels(netns: string): Promise<readonly string[]> {
  const shown = JSON.parse(await sh(`ip -n ${netns} -j link show type vxlan`)) as readonly { ifname?: string }[];
  return shown.flatMap(({ ifname }) => ifname ?? []);
}

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'infralet-vxlan-'));
  await sh(`mkdir ${dir}/conf`);
  await writeFile(
    join(dir, 'conf', '10-test.conflist'),
    conflist('infralet-vxlan', [bridgePlugin(BRIDGE, '10.196.0.0/24'), PORTMAP_PLUGIN]),
  );
  network = cniNetwork(dir);
  world = await AgentWorld.create();
});
afterEach(async () => {
  await world[Symbol.asyncDispose]();
  for (const sandboxId of await network.list(signal)) await network.remove(spec([], sandboxId), signal);
  await rm(dir, { recursive: true, force: true });
});
afterAll(async () => {
  await removeBridge(BRIDGE, signal);
  await removeSharedLeftovers(signal);
  const left = await sh('ip -br link; ls /run/netns 2> /dev/null; iptables-save');
  expect(left.split('\n').filter((line) => /infvx|infralet-test-[mp]\d|10\.19[67]\.|18097/.test(line))).toEqual([]);
  expect(JSON.parse(await sh('ip -j link show type vxlan'))).not.toContainEqual(expect.objectContaining({ mtu: 1450 }));
});

test('a pod elsewhere is a pod of the node: node, pod and outside, host port, itself; through restarts of both ends', async () => {
  await using machine = await remoteMachine(world, 1);
  const pod = spec([{ hostPort: HOST_PORT, containerPort: 8080, protocol: 'tcp', hostIp: '' }]);
  const [result, link] = await linked(machine, pod);
  expect(link).toMatchObject({ local: machine.node[0], remote: machine.address[0], port: 4789, mtu: 1450 });
  const ip = podIp(result);
  await sh(`busybox ping -c 1 -W 5 ${ip}`);
  await sh(`ip netns exec ${machine.pod} busybox ping -c 1 -W 5 -s 1372 ${machine.node[0]}`);

  const size = 8 * 2 ** 20;
  const whole = traffic.digest(size);
  await using _server = await traffic.serve(machine.pod, 8080);
  const everyWay = async (): Promise<void> => {
    expect((await traffic.fetch(undefined, ip, 8080, size)).digest).toBe(whole);
    expect((await traffic.fetch(undefined, '127.0.0.1', HOST_PORT, size)).digest).toBe(whole);
    // The pod through its own host port: out to the node and back.
    expect((await traffic.fetch(machine.pod, machine.node[0], HOST_PORT, size)).digest).toBe(whole);
  };
  await everyWay();
  // Another pod of the node, whose machine is elsewhere, too.
  await using other = await remoteMachine(world, 2);
  const second = spec();
  const [secondResult, secondLink] = await linked(other, second);
  expect(secondLink.vni).not.toBe(link.vni);
  const seen = await traffic.fetch(other.pod, ip, 8080, size);
  expect(seen).toEqual({ digest: whole, from: podIp(secondResult) });

  // The pod sees an ordinary interface and nothing of the machine's network.
  const inPod = JSON.parse(await sh(`ip -n ${machine.pod} -j addr show`)) as {
    ifname: string;
    mtu: number;
    address: string;
  }[];
  expect(inPod.map(({ ifname }) => ifname)).toEqual(['lo', 'eth0']);
  expect(inPod[1]).toMatchObject({ mtu: 1450, address: result.mac });
  await expect(traffic.fetch(machine.pod, machine.address[0], 7443, 1)).rejects.toThrow();

  // A daemon that starts anew finds the link, and changes nothing.
  network = cniNetwork(dir);
  expect(await network.join(pod, result, { kind: 'vxlan', address: machine.address[0] }, signal)).toEqual(link);
  await machine.machine.kill();
  await machine.machine.start();
  await everyWay();

  await network.remove(pod, signal);
  await network.remove(second, signal);
  expect(await sh('iptables-save -t nat; ls /run/netns')).not.toMatch(new RegExp(`${HOST_PORT}|${netnsOf(result)}`));
  expect(await network.list(signal)).toEqual([]);
});

test('the MTU is what the way between both ends carries, and packets of that size are never cut', async () => {
  // As on Compute Engine.
  await using machine = await remoteMachine(world, 3, 1460);
  await sh(`ip -n ${machine.netns} link set eth0 mtu 1400`);
  const [result, link] = await linked(machine, spec());
  expect(link.mtu).toBe(1410);
  const [, eth0] = JSON.parse(await sh(`ip -n ${machine.pod} -j link show`)) as [unknown, { mtu: number }];
  expect(eth0.mtu).toBe(1350);
  expect(await sh(`ip -n ${netnsOf(result)} -o link show machine`)).toContain('mtu 1410');

  // Linux sets DF on datagrams that fit its interface: 1,300 bytes and 28 of headers here, 1,400 over a wider way.
  await using wide = await remoteMachine(world, 4);
  await linked(wide, spec());
  for (const [each, bytes] of [
    [machine, 1300],
    [wide, 1400],
  ] as const) {
    const cuts = async (): Promise<readonly string[]> =>
      await Promise.all([each.pod, each.netns].map(async (netns) => await fragments(netns)));
    const before = await cuts();
    const got = await datagrams(
      each.node[0],
      async (port) => {
        const script = `const s = require('node:dgram').createSocket('udp4'); s.send(Buffer.alloc(${bytes}, 'x'), ${port}, '${each.node[0]}', () => s.close())`;
        await run(...inNode(each.pod, script), { signal, timeoutMs: 20_000 });
      },
      (text) => text.length === bytes,
    );
    expect(got).toHaveLength(1);
    expect(await cuts()).toEqual(before);
  }
});

test('nobody but its machine sends for a pod, and nobody but its node sends to it', async () => {
  await using machine = await remoteMachine(world, 5);
  const [result, link] = await linked(machine, spec());
  const gateway = '10.196.0.1';
  const gatewayMac = (await sh(`cat /sys/class/net/${BRIDGE}/address`)).trim();
  const sends = async (netns: string | undefined, from: string, to: string, what: InnerDatagram): Promise<void> => {
    const packet = vxlanPacket(what).toString('hex');
    const script = `const s = require('node:dgram').createSocket('udp4'); s.bind(0, '${from}', () => s.send(Buffer.from('${packet}', 'hex'), 4789, '${to}', () => s.close()))`;
    const [file, args] = inNode(netns, script);
    await run(file, args, { signal, timeoutMs: 20_000 });
  };

  const pod = { mac: result.mac, address: podIp(result) };
  const [node] = machine.node;
  const [own, another] = machine.address;
  const got = await datagrams(
    gateway,
    async (port) => {
      const good: InnerDatagram = {
        vni: link.vni,
        from: pod,
        to: { mac: gatewayMac, address: gateway, port },
        text: 'right',
      };
      await sends(machine.netns, another, node, { ...good, text: 'from another machine' });
      await sends(machine.netns, own, node, { ...good, vni: link.vni ^ 1, text: 'with another number' });
      const stranger = { ...pod, mac: '02:00:00:00:00:99' };
      await sends(machine.netns, own, node, { ...good, from: stranger, text: 'with another hardware address' });
      await sends(machine.netns, another, node, { ...good, from: stranger, text: 'with neither' });
      await sends(machine.netns, own, node, good);
    },
    (text) => text === 'right',
  );
  expect(got).toEqual(['right']);

  // The other way: into the pod.
  const script = `const s = require('node:dgram').createSocket('udp4'); s.on('message', (m) => console.log(String(m))); s.bind(9000, () => console.log('ready'))`;
  const [file, args] = inNode(machine.pod, script);
  const listener = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let heard = '';
  listener.stdout.on('data', (data: Buffer) => {
    heard += String(data);
  });
  await once(listener.stdout, 'data');
  const to: InnerDatagram = {
    vni: link.vni,
    from: { mac: gatewayMac, address: gateway },
    to: { ...pod, port: 9000 },
    text: 'right',
  };
  await sends(undefined, machine.node[1], own, { ...to, text: 'from another node' });
  await sends(undefined, node, own, { ...to, vni: link.vni ^ 1, text: 'with another number' });
  await sends(undefined, node, own, to);
  await until(() => (heard.includes('right') ? true : undefined), { everyMs: 10, signal });
  expect(heard).toBe('ready\nright\n');
  await endChild(listener);

  // What the node itself would be told by its cloud is not for the pod.
  await sh(`ip addr add 169.254.169.254/32 dev ${BRIDGE}`);
  await expect(sh(`ip netns exec ${machine.pod} busybox ping -c 1 -W 1 169.254.169.254`)).rejects.toThrow(
    /exit code 1/,
  );
  await sh(`ip addr del 169.254.169.254/32 dev ${BRIDGE}`);
});

test('a cloud network of IPv6 carries pods as well, with its larger headers, and keeps strangers out', async () => {
  await using machine = await remoteMachine(world, 7);
  const [own, node] = [ofIpv6(machine.address[0]), ofIpv6(machine.node[0])];
  const [result, link] = await linked(machine, spec(), own);
  expect(link).toMatchObject({ local: node, remote: own, mtu: 1430 });
  const size = 4 * 2 ** 20;
  await using _server = await traffic.serve(machine.pod, 8080);
  expect((await traffic.fetch(undefined, podIp(result), 8080, size)).digest).toBe(traffic.digest(size));
  network = cniNetwork(dir);
  expect(
    await network.join(spec([], (await network.list(signal))[0]), result, { kind: 'vxlan', address: own }, signal),
  ).toEqual(link);
  expect((await traffic.fetch(undefined, podIp(result), 8080, size)).digest).toBe(traffic.digest(size));
  const rules = await sh(`ip netns exec ${machine.netns} nft list table inet infralet-pod-link`);
  expect(rules).toContain(`ip6 saddr != ${node} drop`);
  // A machine that is told of an address that it does not have says so.
  await expect(machine.configure(result, { ...link, remote: 'fd42:97::99' })).rejects.toThrow(
    /does not have the address fd42:97::99/,
  );
});

test('numbers: one that is taken is passed over, one that was noted stays; a machine may come back with another address', async () => {
  await using machine = await remoteMachine(world, 6);
  const pod = spec();
  const result = await network.add(pod, signal);
  const noted = async (id: SandboxId): Promise<{ link?: VxlanLink }> =>
    JSON.parse(await readFile(join(dir, 'network', `${id}.json`), 'utf8')) as { link?: VxlanLink };
  const join1 = async (address: string): Promise<VxlanLink | undefined> =>
    await network.join(pod, result, { kind: 'vxlan', address }, signal);
  // Killed between the note and the device.
  const planned = { vni: 4_711_000, local: machine.node[0], remote: machine.address[0], port: 4789, mtu: 1450 };
  await writeFile(
    join(dir, 'network', `${pod.sandboxId}.json`),
    JSON.stringify({ ...(await noted(pod.sandboxId)), link: planned }),
  );
  network = cniNetwork(dir);
  expect(await join1(machine.address[0])).toEqual(planned);
  expect(await tunnels(netnsOf(result))).toEqual(['machine']);
  const moved = await join1(machine.address[1]);
  expect(moved).toEqual({ ...planned, remote: machine.address[1] });
  expect((await noted(pod.sandboxId)).link).toEqual(moved);
  expect(await sh(`ip -n ${netnsOf(result)} -d link show machine`)).toContain(`remote ${machine.address[1]}`);
  await network.remove(pod, signal);

  const third = spec();
  const thirdResult = await network.add(third, signal);
  await writeFile(
    join(dir, 'network', `${third.sandboxId}.json`),
    JSON.stringify({ ...(await noted(third.sandboxId)), link: { ...planned, vni: 4_711_001 } }),
  );
  await sh('ip link add infvxother type vxlan id 4711001 dstport 4789 remote 10.197.6.9 && ip link set infvxother up');
  const link = await network.join(third, thirdResult, { kind: 'vxlan', address: machine.address[0] }, signal);
  await sh('ip link del infvxother');
  expect(link?.vni).not.toBe(4_711_001);
  expect(link?.vni).toBeGreaterThanOrEqual(65_536);
  await expect(join1('203.0.113.1')).rejects.toThrow(/has no network on this node/);
});

/** A script in a namespace, or in the node's own. */
function inNode(netns: string | undefined, script: string): readonly [string, readonly string[]] {
  const program = [process.execPath, '-e', script];
  return netns === undefined ? [process.execPath, ['-e', script]] : ['ip', ['netns', 'exec', netns, ...program]];
}

/** Packets that a namespace had to cut, and could not. */
async function fragments(netns: string): Promise<string> {
  const [names = [], values = []] = (await sh(`ip netns exec ${netns} cat /proc/net/snmp`))
    .split('\n')
    .filter((line) => line.startsWith('Ip:'))
    .map((line) => line.split(' '));
  return ['FragCreates', 'FragFails'].map((name) => values[names.indexOf(name)]).join();
}

/** What arrives at a UDP port of the node while `act` runs, until `last` has. */
async function datagrams(
  host: string,
  act: (port: number) => Promise<void>,
  last: (text: string) => boolean,
): Promise<readonly string[]> {
  const socket = createSocket('udp4');
  const texts: string[] = [];
  socket.on('message', (message) => texts.push(String(message)));
  try {
    socket.bind(0, host);
    await once(socket, 'listening');
    await act(socket.address().port);
    await until(() => (texts.some(last) ? true : undefined), { everyMs: 10, signal: AbortSignal.timeout(10_000) });
    return texts;
  } finally {
    socket.close();
  }
}
