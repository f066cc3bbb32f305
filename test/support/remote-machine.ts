/**
 * A machine that is elsewhere, in two namespaces of this host: one is the machine's own network, with the real agent in it,
 * joined to the node's by a veth pair that plays the cloud's network; the other is its pod's.
 */
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { run } from '../../src/base/process.ts';
import type { AgentChannel } from '../../src/guest/channel.ts';
import type { DirectLink, PodNetworkResult, VxlanLink } from '../../src/network/pod-network.ts';
import { guestCniConfig } from '../../src/sandbox/guest-config.ts';
import { podNic } from '../../src/sandbox/guest-run.ts';
import { type AgentWorld, soon, type TestMachine } from './agent/machine.ts';

const signal = AbortSignal.timeout(600_000);
const sh = async (command: string): Promise<string> => await run('sh', ['-c', command], { signal, timeoutMs: 20_000 });

export interface RemoteMachine extends AsyncDisposable {
  readonly machine: TestMachine;
  readonly channel: AgentChannel;
  /** Addresses in the cloud's network: of the node, a second one of it, and the same of the machine. */
  readonly node: readonly [string, string];
  readonly address: readonly [string, string];
  readonly netns: string;
  readonly pod: string;
  /** What guest.run and containerd do about the pod's network. */
  configure(network: PodNetworkResult, link: VxlanLink | DirectLink): Promise<void>;
}

/** `number`: unique on this host, at most 255; `mtu`: of the cloud's network. */
export async function remoteMachine(world: AgentWorld, number: number, mtu = 1500): Promise<RemoteMachine> {
  const [netns, pod, veth] = [`infralet-test-m${number}`, `infralet-test-p${number}`, `infvx${number}`];
  const subnet = `10.197.${number}`;
  const node = [`${subnet}.1`, `${subnet}.4`] as const;
  const address = [`${subnet}.2`, `${subnet}.3`] as const;
  await using untilReady = new AsyncDisposableStack();
  untilReady.defer(async () => void (await sh(`ip netns del ${pod}; ip netns del ${netns}; ip link del ${veth} || :`)));
  await sh(
    `ip netns add ${netns} && ip netns add ${pod} && ip link add ${veth} mtu ${mtu} type veth peer name eth0 mtu ${mtu} netns ${netns} &&` +
      ` ip link set ${veth} up && ip -n ${netns} link set eth0 up && ip -n ${netns} link set lo up && ip -n ${pod} link set lo up`,
  );
  for (const each of node) await sh(`ip addr add ${each}/24 dev ${veth}`);
  await sh(`ip addr add ${ofIpv6(node[0])}/64 dev ${veth} nodad`);
  await sh(`ip -n ${netns} addr add ${ofIpv6(address[0])}/64 dev eth0 nodad`);
  for (const each of address) await sh(`ip -n ${netns} addr add ${each}/24 dev eth0`);
  const { machine, channel } = await world.enrolled({ place: { netns, host: address[0] } });
  mkdirSync(join(machine.dir, 'sys', 'class'), { recursive: true });
  mkdirSync(join(machine.dir, 'proc'), { recursive: true });
  symlinkSync('/proc/sys', join(machine.dir, 'proc', 'sys'));
  symlinkSync('/sys/class/net', join(machine.dir, 'sys', 'class', 'net'));
  const made = untilReady.move();
  return {
    machine,
    channel,
    node,
    address,
    netns,
    pod,
    configure: async (network, link) => {
      const limits = { memoryBytes: 0, cpuQuota: 0, cpuPeriod: 0, cpuShares: 0 };
      await channel.configurePodNic(podNic(network, link), limits, soon());
      const cni = JSON.parse(guestCniConfig(network)) as {
        cniVersion: string;
        name: string;
        plugins: readonly object[];
      };
      const { cniVersion, name } = cni;
      const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: pod, CNI_NETNS: `/run/netns/${pod}`, CNI_IFNAME: 'eth0' };
      const path = '/opt/cni/bin:/usr/lib/cni';
      await run('ip', ['netns', 'exec', netns, 'sh', '-c', `PATH=${path}:$PATH exec host-device`], {
        signal,
        timeoutMs: 20_000,
        env: { ...env, CNI_PATH: path },
        input: JSON.stringify({ cniVersion, name, ...cni.plugins[0] }),
      });
    },
    [Symbol.asyncDispose]: async () => await made.disposeAsync(),
  };
}

/** The IPv6 address of who has this one: only the first of each end has one. */
export function ofIpv6(address: string): string {
  const [, , number, last] = address.split('.');
  return `fd42:97:${number}::${last}`;
}
