/**
 * Pods with an address of the cloud's own: the real agent in a namespace that plays the machine, the node beside it in the
 * cloud's network. Nothing is made on the node. Needs root.
 */
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest';
import { run } from '../../src/base/process.ts';
import { directNetwork } from '../../src/network/direct.ts';
import type { DirectLink } from '../../src/network/pod-network.ts';
import { AgentWorld } from '../support/agent/machine.ts';
import { type RemoteMachine, remoteMachine } from '../support/remote-machine.ts';
import { traffic } from '../support/traffic.ts';

const signal = AbortSignal.timeout(600_000);
const sh = async (command: string): Promise<string> => await run('sh', ['-c', command], { signal, timeoutMs: 20_000 });
const SIZE = 4 * 2 ** 20;
const WHOLE = traffic.digest(SIZE);

let world: AgentWorld;
beforeEach(async () => {
  world = await AgentWorld.create();
});
afterEach(async () => await world[Symbol.asyncDispose]());
afterAll(async () => {
  const left = await sh('ip -br link; ls /run/netns 2> /dev/null');
  expect(left.split('\n').filter((line) => /infvx|infralet-test-[mp]\d/.test(line))).toEqual([]);
});

/** What the cloud has given the machine for its pod; `last`: of the address. */
async function podOf(machine: RemoteMachine, last: number): Promise<string> {
  const pod = machine.address[0].replace(/\d+$/, String(last));
  const link: DirectLink = { machine: machine.address[0], pod };
  await machine.configure(directNetwork(link), link);
  return pod;
}

const pings = async (netns: string, address: string): Promise<boolean> =>
  await sh(`ip netns exec ${netns} busybox ping -c 1 -W 1 ${address}`).then(
    () => true,
    () => false,
  );

/** A script that ends with 0 when the port answers, with 3 when nothing does for a second. */
const connects = (host: string, port: number): string =>
  `require("node:net").connect(${port}, "${host}", () => process.exit(0)); setTimeout(() => process.exit(3), 1000)`;

test('the pod is where its address is: reached from outside and back, also after the agent has done it twice', async () => {
  // As on Compute Engine.
  await using machine = await remoteMachine(world, 11, 1460);
  const pod = await podOf(machine, 8);
  await sh(`busybox ping -c 1 -W 5 ${pod}`);
  await using _server = await traffic.serve(machine.pod, 8080);
  expect((await traffic.fetch(undefined, pod, 8080, SIZE)).digest).toBe(WHOLE);
  await using _node = await traffic.serve(undefined, 18_098);
  // The node sees the pod's own address, not the machine's.
  expect(await traffic.fetch(machine.pod, machine.node[0], 18_098, SIZE)).toEqual({ digest: WHOLE, from: pod });

  const inPod = JSON.parse(await sh(`ip -n ${machine.pod} -j addr show`)) as { ifname: string; mtu: number }[];
  expect(inPod.map(({ ifname, mtu }) => [ifname, mtu])).toEqual([
    ['lo', 65_536],
    ['eth0', 1460],
  ]);

  // A daemon that was killed before it heard of the end does it again, perhaps to an agent that has started anew.
  await machine.machine.kill();
  await machine.machine.start();
  expect(await podOf(machine, 8)).toBe(pod);
  expect((await traffic.fetch(undefined, pod, 8080, SIZE)).digest).toBe(WHOLE);
});

test('the pod gets at neither the machine nor what is local to it, and sends under its own address only', async () => {
  await using machine = await remoteMachine(world, 12);
  const pod = await podOf(machine, 5);
  // Its pair is the node's second address.
  expect(machine.node[1]).toBe(pod.replace(/\d+$/, '4'));
  expect(await pings(machine.pod, machine.node[1])).toBe(true);
  const agent = `${process.execPath} -e '${connects(machine.address[0], machine.machine.address.port)}'`;
  await sh(agent);
  await expect(sh(`ip netns exec ${machine.pod} ${agent}`)).rejects.toThrow(/exit code 3/);
  expect(await pings(machine.pod, machine.address[0])).toBe(false);
  expect(await pings(machine.pod, machine.address[1])).toBe(false);
  // Where the metadata service would be, were there no rule.
  const [veth, address] = ['infvx12', '169.254.169.254'];
  await sh(`ip addr add ${address}/32 dev ${veth} && ip -n ${machine.netns} route add ${address}/32 dev eth0`);
  expect(await pings(machine.netns, address)).toBe(true);
  expect(await pings(machine.pod, address)).toBe(false);
  // Another's address: the cloud would drop it, but it does not come so far.
  const stolen = pod.replace(/\d+$/, '77');
  await sh(
    `ip -n ${machine.pod} addr add ${stolen}/32 dev eth0 && ip route add ${stolen}/32 via ${machine.address[0]}`,
  );
  await sh(`ip -n ${machine.netns} route add ${stolen}/32 dev pod-link`);
  const from = async (source: string): Promise<boolean> =>
    await sh(`ip netns exec ${machine.pod} busybox ping -c 1 -W 1 -I ${source} ${machine.node[0]}`).then(
      () => true,
      () => false,
    );
  expect(await from(pod)).toBe(true);
  expect(await from(stolen)).toBe(false);
  await expect(
    machine.configure(directNetwork({ machine: '203.0.113.1', pod }), { machine: '203.0.113.1', pod }),
  ).rejects.toThrow(/does not have the address 203.0.113.1/);
});
