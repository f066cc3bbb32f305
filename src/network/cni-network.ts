/** Pod networks by CNI: namespace, chain, marker, in the order that survives a crash. One operation per sandbox at a time. */
import { randomInt } from 'node:crypto';
import { join } from 'node:path';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import { KeyedLock } from '../base/keyed-lock.ts';
import type { PodLink } from '../cloud/contract.ts';
import type { Logger } from '../telemetry/log.ts';
import { type CniCall, cniAdd, cniCheck, cniDel, findPlugin } from './cni.ts';
import { loadConflist } from './conflist.ts';
import { removeMasquerade } from './iptables.ts';
import { joinTap } from './join.ts';
import { addNetns, deleteNetns, findLink, loopbackUp, netnsExists, netnsName, netnsPath } from './netns.ts';
import type { PodNetwork, PodNetworkResult, PodNetworkSpec, VxlanLink } from './pod-network.ts';
import { podNetworkResult } from './result.ts';
import { MarkerStore, type NetworkMarker } from './store.ts';
import { joinVxlan, pathTo } from './vxlan.ts';

const IF_NAME = 'eth0';
/** What a failed ADD left behind is removed within this time, whatever has become of the caller; milliseconds. */
const CLEANUP_MS = 60_000;
/** Numbers of tunnels: 24 bits, without the small ones that people and other programs give. */
const VNIS = { from: 2 ** 16, below: 2 ** 24 } as const;
/** Numbers that other programs on the node may have taken, one after the other. */
const VNI_TRIES = 16;

export interface CniNetworkOptions {
  /** Directory with *.conflist files, or `embedded`. */
  readonly confDir: string;
  readonly binDirs: readonly string[];
  /** For the addresses of host-local, unless the conflist says where. */
  readonly cacheDir: string;
  /** One plugin call, milliseconds. */
  readonly timeoutMs: number;
  /** The daemon's state directory. */
  readonly stateDir: string;
  /** UDP port of tunnels to machines elsewhere, and this node's address in them unless the route to the machine names it. */
  readonly vxlan: { readonly port: number; readonly address?: string | undefined };
  readonly log: Logger;
}

export class CniNetwork implements PodNetwork {
  readonly #options: CniNetworkOptions;
  readonly #store: MarkerStore;
  readonly #locks = new KeyedLock<SandboxId>();
  /** Numbers of tunnels in use or about to be. */
  #vnis: Promise<Set<number>> | undefined;

  constructor(options: CniNetworkOptions) {
    this.#options = options;
    this.#store = new MarkerStore(join(options.stateDir, 'network'));
  }

  async ready(signal: AbortSignal): Promise<{ readonly ok: boolean; readonly reason: string }> {
    try {
      const { plugins } = await loadConflist(this.#options.confDir, this.#options.cacheDir);
      signal.throwIfAborted();
      for (const { type, ipam } of plugins) {
        await findPlugin(type, this.#options.binDirs);
        if (ipam?.type !== undefined) await findPlugin(ipam.type, this.#options.binDirs);
      }
      return { ok: true, reason: '' };
    } catch (error) {
      signal.throwIfAborted();
      return { ok: false, reason: errorMessage(error) };
    }
  }

  async add(spec: PodNetworkSpec, signal: AbortSignal): Promise<PodNetworkResult> {
    const id = spec.sandboxId;
    using _ = await this.#locks.acquire(id, signal);
    // A note from an earlier try means that its outcome was never heard of: away with it, then anew.
    await this.#removeAll(id, signal);
    const { confDir, cacheDir } = this.#options;
    const marker: NetworkMarker = {
      version: 1,
      netns: netnsName(id),
      conflist: await loadConflist(confDir, cacheDir),
      args: cniArgs(spec),
      capabilities: capabilities(spec),
      state: { kind: 'adding' },
    };
    await this.#store.write(id, marker);
    try {
      await addNetns(marker.netns, signal);
      // An emulated machine may take as long as all of this: whatever can be done at once is.
      const [result] = await Promise.all([cniAdd(this.#call(id, marker), signal), loopbackUp(marker.netns, signal)]);
      const link = await findLink(marker.netns, IF_NAME, signal);
      if (!link) throw new InfraletError('INTERNAL', `the CNI network made no interface ${IF_NAME}`);
      const network = podNetworkResult(result, netnsPath(marker.netns), IF_NAME, link);
      await this.#store.write(id, { ...marker, state: { kind: 'added', result } });
      return network;
    } catch (error) {
      await this.#removeAll(id, AbortSignal.timeout(CLEANUP_MS)).catch((problem: unknown) => {
        this.#options.log.warn('a failed network set-up left something behind', { sandboxId: id, error: problem });
      });
      throw error;
    }
  }

  async check(spec: PodNetworkSpec, _result: PodNetworkResult, signal: AbortSignal): Promise<void> {
    const id = spec.sandboxId;
    using _ = await this.#locks.acquire(id, signal);
    const marker = await this.#added(id);
    await cniCheck(this.#call(id, marker), marker.state.result, signal);
  }

  async join(
    spec: PodNetworkSpec,
    result: PodNetworkResult,
    link: PodLink,
    signal: AbortSignal,
  ): Promise<VxlanLink | undefined> {
    const id = spec.sandboxId;
    using _ = await this.#locks.acquire(id, signal);
    const marker = await this.#added(id);
    switch (link.kind) {
      case 'tap':
        await joinTap({ netns: marker.netns, ifName: IF_NAME, mtu: result.mtu, tap: link.device }, signal);
        return undefined;
      case 'vxlan':
        return await this.#tunnel(id, marker, result, link.address, signal);
      case 'direct':
        throw new InfraletError('INTERNAL', `the pod of the sandbox ${id} has its network from the cloud`);
    }
  }

  async #tunnel(
    id: SandboxId,
    marker: NetworkMarker,
    { mac, mtu }: PodNetworkResult,
    remote: string,
    signal: AbortSignal,
  ): Promise<VxlanLink> {
    const { port, address } = this.#options.vxlan;
    const path = await pathTo(remote, address, signal);
    this.#vnis ??= this.#knownVnis();
    const vnis = await this.#vnis;
    for (let tries = 0, vni = marker.link?.vni ?? free(vnis); tries < VNI_TRIES; tries += 1, vni = free(vnis)) {
      vnis.add(vni);
      const link = { vni, local: path.local, remote, port, mtu: Math.min(mtu, path.mtu) };
      await this.#store.write(id, { ...marker, link });
      if (await joinVxlan({ netns: marker.netns, ifName: IF_NAME, mac, link }, signal)) return link;
      this.#options.log.info('the number of a tunnel is taken on this node; trying another', { sandboxId: id, vni });
    }
    throw new InfraletError('RESOURCE_EXHAUSTED', `no free number for the tunnel of the sandbox ${id}`, {
      hint: 'look at `ip -d link show type vxlan`',
    });
  }

  async #knownVnis(): Promise<Set<number>> {
    const markers = await Promise.all(
      // One that cannot be read is somebody else's trouble: a number that is taken is found out when it is used.
      (await this.#store.list()).map(async (id) => await this.#store.read(id).catch(() => undefined)),
    );
    return new Set(markers.flatMap((marker) => marker?.link?.vni ?? []));
  }

  async remove(spec: PodNetworkSpec, signal: AbortSignal): Promise<void> {
    using _ = await this.#locks.acquire(spec.sandboxId, signal);
    await this.#removeAll(spec.sandboxId, signal);
  }

  async list(signal: AbortSignal): Promise<readonly SandboxId[]> {
    signal.throwIfAborted();
    return await this.#store.list();
  }

  /** To be called under the sandbox's lock. */
  async #removeAll(id: SandboxId, signal: AbortSignal): Promise<void> {
    const marker = await this.#store.read(id);
    if (!marker) {
      await deleteNetns(netnsName(id), signal);
      await this.#store.remove(id);
      return;
    }
    const { state, conflist, netns } = marker;
    const result = state.kind === 'adding' ? undefined : state.result;
    let remaining = state.kind === 'deleting' ? state.remaining : conflist.plugins.length;
    const note = async (left: number): Promise<void> => {
      remaining = left;
      await this.#store.write(id, { ...marker, state: { kind: 'deleting', result, remaining } });
    };
    if (state.kind !== 'deleting') await note(remaining);
    const lost = !(await netnsExists(netns));
    await cniDel(this.#call(id, marker), result, remaining, note, signal);
    if (lost) await removeMasquerade(id, signal);
    await deleteNetns(netns, signal);
    await this.#store.remove(id);
    if (marker.link) (await this.#vnis)?.delete(marker.link.vni);
  }

  async #added(
    id: SandboxId,
  ): Promise<NetworkMarker & { readonly state: Extract<NetworkMarker['state'], { kind: 'added' }> }> {
    const marker = await this.#store.read(id);
    if (marker?.state.kind !== 'added' || !(await netnsExists(marker.netns))) {
      throw new InfraletError('FAILED_PRECONDITION', `the sandbox ${id} has no network on this node`, {
        hint: 'its namespace is gone, perhaps by a reboot; the pod has to be made anew',
        context: { sandboxId: id },
      });
    }
    return { ...marker, state: marker.state };
  }

  #call(id: SandboxId, marker: NetworkMarker): CniCall {
    return {
      conflist: marker.conflist,
      containerId: id,
      netns: netnsPath(marker.netns),
      ifName: IF_NAME,
      args: marker.args,
      capabilities: marker.capabilities,
      binDirs: this.#options.binDirs,
      timeoutMs: this.#options.timeoutMs,
    };
  }
}

/** Random, so that packets of a pod that is gone, late on their way, are hardly ever those of its successor. */
function free(taken: ReadonlySet<number>): number {
  for (;;) {
    const vni = randomInt(VNIS.from, VNIS.below);
    if (!taken.has(vni)) return vni;
  }
}

/** What network add-ons expect to learn of the pod. */
function cniArgs(spec: PodNetworkSpec): string {
  return [
    'IgnoreUnknown=1',
    `K8S_POD_NAMESPACE=${spec.podNamespace}`,
    `K8S_POD_NAME=${spec.podName}`,
    `K8S_POD_INFRA_CONTAINER_ID=${spec.sandboxId}`,
    `K8S_POD_UID=${spec.podUid}`,
  ].join(';');
}

function capabilities(spec: PodNetworkSpec): Readonly<Record<string, unknown>> {
  const portMappings = spec.portMappings
    .filter(({ hostPort }) => hostPort > 0)
    .map(({ hostPort, containerPort, protocol, hostIp }) => ({ hostPort, containerPort, protocol, hostIP: hostIp }));
  return portMappings.length > 0 ? { portMappings } : {};
}
