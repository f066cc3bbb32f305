/**
 * The pod's sandbox in the machine: the one that the machine's template was frozen with where it fits the pod, else one
 * that the guest's containerd makes. Safe to repeat after a crash at any point.
 */
import { InfraletError } from '../base/errors.ts';
import { type Clock, until, withTimeout } from '../base/time.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { AgentChannel, GuestFile, GuestNic, GuestPod, GuestPodResources } from '../guest/channel.ts';
import { guestId } from '../guest/conduct.ts';
import type { DirectLink, PodNetworkResult, VxlanLink } from '../network/pod-network.ts';
import { POD_NIC, TEMPLATE_CONFLIST, TEMPLATE_NAMESPACE } from '../rpc/agent-protocol.ts';
import { carrySeccomp } from '../volume/seccomp.ts';
import { fitsTemplateSandbox, guestCniConfig, guestPod, guestSandboxConfig, type NodeFacts } from './guest-config.ts';

/** Time for a relayed call that should be quick; emulated machines are ten times slower than real ones. */
export const GUEST_CALL_MS = 60_000;
const CONTAINERD_POLL_MS = 20;

export interface GuestRun {
  readonly channel: AgentChannel;
  readonly config: PodSandboxConfig__Output;
  readonly node: NodeFacts;
  readonly network: PodNetworkResult;
  /** How the machine makes the pod's NIC; undefined: it has one. */
  readonly link: VxlanLink | DirectLink | undefined;
  readonly limits: GuestPodResources;
  readonly clock: Clock;
}

/** Resolves with containerd's id of the sandbox. */
export async function runInGuest(run: GuestRun, signal: AbortSignal): Promise<string> {
  const { channel, config, node, network, limits } = run;
  const options = { signal, timeoutMs: GUEST_CALL_MS };
  const pod = podOfTemplate(run);
  const id = pod ? await channel.configurePod(pod, options) : '';
  if (id !== '') return id;
  const found = await existing(run, signal);
  if (found !== undefined) return found;
  await channel.configurePodNic(podNic(network, run.link), limits, options);
  await channel.putFiles(
    { root: 'ROOT_CNI', path: '10-pod.conflist', replace: true },
    one(Buffer.from(guestCniConfig(network))),
    options,
  );
  await untilNetwork(run, true, signal);
  const seccomp = await carrySeccomp(config.linux?.securityContext ?? null, channel, signal);
  const made = await channel.cri('RunPodSandbox', { config: guestSandboxConfig(config, node, seccomp) }, options);
  return guestId(made.podSandboxId);
}

/** For the sandbox of a template, which has the NIC that its machine came with; undefined: it does not fit this pod. */
export function podOfTemplate({
  link,
  config,
  node,
  network,
  limits,
}: Omit<GuestRun, 'channel'>): GuestPod | undefined {
  return link === undefined && fitsTemplateSandbox(config) ? guestPod(config, node, network, limits) : undefined;
}

/** Node and machine each call their own address local. */
export function podNic({ mac, mtu }: PodNetworkResult, link: VxlanLink | DirectLink | undefined): GuestNic {
  if (!link) return { foundBy: POD_NIC, mac, mtu };
  if ('pod' in link) return { mac, mtu, routed: { local: link.machine, pod: link.pod } };
  const { vni, local, remote, port } = link;
  return { mac, mtu: link.mtu, vxlan: { vni, local: remote, remote: local, port } };
}

/** A pod sandbox that an earlier try made before the daemon was killed. Removes all others. */
async function existing(run: GuestRun, signal: AbortSignal): Promise<string | undefined> {
  const { channel } = run;
  const options = { signal, timeoutMs: GUEST_CALL_MS };
  const list = async () => await channel.cri('ListPodSandbox', {}, options);
  const { items } = await onceContainerdAnswers(list, 'the start of containerd in the machine', run.clock, signal);
  for (const item of items) {
    const template = item.metadata?.namespace === TEMPLATE_NAMESPACE;
    if (item.state === 'SANDBOX_READY' && !template) return guestId(item.id);
    // Stopping gives the pod NIC back.
    if (template) await channel.cri('StopPodSandbox', { podSandboxId: item.id }, options);
    await channel.cri('RemovePodSandbox', { podSandboxId: item.id }, options);
    // The template's network must not be taken for the pod's: containerd has to forget it before it hears of the other.
    if (template) {
      await channel.removeFiles('ROOT_CNI', [TEMPLATE_CONFLIST], options);
      await untilNetwork(run, false, signal);
    }
  }
  return undefined;
}

/** containerd watches its CNI directory; whether its network is ready says which state of it was seen. */
async function untilNetwork({ channel, clock }: GuestRun, wanted: boolean, signal: AbortSignal): Promise<void> {
  const asWanted = async () => {
    const { status } = await channel.cri('Status', {}, { signal, timeoutMs: GUEST_CALL_MS });
    const ready = status?.conditions.find(({ type }) => type === 'NetworkReady')?.status ?? false;
    return ready === wanted ? true : undefined;
  };
  await onceContainerdAnswers(asWanted, "containerd's network set-up in the machine", clock, signal);
}

/** The agent may be up before containerd: asks until there is an answer that is not undefined. */
async function onceContainerdAnswers<T>(
  ask: () => Promise<T | undefined>,
  what: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<T> {
  using limit = withTimeout(signal, GUEST_CALL_MS, what);
  return await until(
    async () => {
      try {
        return await ask();
      } catch (error) {
        if (InfraletError.from(error).code !== 'UNAVAILABLE') throw error;
        return undefined;
      }
    },
    { everyMs: CONTAINERD_POLL_MS, clock, signal: limit },
  );
}

async function* one(content: Buffer): AsyncGenerator<GuestFile> {
  yield {
    path: '',
    kind: 'file',
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeMs: 0,
    size: content.length,
    content: (async function* () {
      yield content;
    })(),
  };
}
