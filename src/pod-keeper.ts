/**
 * Keeps the copies of ready pods (state/pod-files.ts) in step with the stores, and makes a lost journal anew from them. What
 * is made anew is believed only so far: the reconciler connects to the machine, whose certificate names sandbox and instance,
 * and reads all containers from its containerd. The running pod sees nothing of it.
 */
import { errorMessage } from './base/errors.ts';
import type { SandboxId } from './base/ids.ts';
import { parseContainerRecord } from './container/record.ts';
import type { ContainerEntry, ContainerStore } from './container/store.ts';
import type { PodNetwork } from './network/pod-network.ts';
import { containerCodec, sandboxCodec } from './rpc/codecs.ts';
import type { CriPackage } from './rpc/load.ts';
import { hasDirectLink, isReady, parseSandboxRecord } from './sandbox/record.ts';
import type { SandboxEntry, SandboxStore } from './sandbox/store.ts';
import type { PodFiles } from './state/pod-files.ts';
import type { Logger } from './telemetry/log.ts';

export interface PodKeeperDeps {
  readonly files: PodFiles;
  readonly sandboxes: SandboxStore;
  readonly containers: ContainerStore;
  readonly cri: CriPackage;
  readonly log: Logger;
}

/**
 * To be called when the stores have been loaded and before anybody works on them. Returns the sandboxes that the journal did
 * not know.
 */
export function keepPods(deps: PodKeeperDeps): readonly SandboxId[] {
  const restored = restore(deps);
  const { files, sandboxes, containers, cri, log } = deps;
  const pods = sandboxCodec(cri);
  const specs = containerCodec(cri);

  /** A copy that cannot be written costs a pod only when the journal is lost, too. */
  const carefully = (id: SandboxId, work: () => void): void => {
    try {
      work();
    } catch (error) {
      log.warn('the copy of a pod could not be kept', { sandboxId: id, reason: errorMessage(error) });
    }
  };
  const keepContainer = ({ record, config }: ContainerEntry): void => {
    const { id, sandboxId } = record;
    const owner = sandboxes.get(sandboxId);
    if (!owner || !isReady(owner.record)) return;
    // Before it is in the machine, or on its way out of it, nobody counts on it.
    if (record.guestId === '' || record.removing) files.dropContainer(sandboxId, id);
    else files.putContainer(sandboxId, id, record, specs.encode(config));
  };
  const keepSandbox = ({ record, config }: SandboxEntry, wasReady: boolean): void => {
    if (!isReady(record)) {
      // Asked to end: it must not come back.
      if (wasReady) files.dropSandbox(record.id);
      return;
    }
    files.putSandbox(record.id, record, pods.encode(config));
    if (!wasReady) for (const entry of containers.ofSandbox(record.id)) keepContainer(entry);
  };

  // A daemon that was killed between the journal's write and the copy's left them different.
  for (const id of files.ids()) {
    const entry = sandboxes.get(id);
    if (!sandboxes.knows(id) || (entry && !isReady(entry.record))) carefully(id, () => files.dropSandbox(id));
  }
  for (const entry of sandboxes.all()) carefully(entry.record.id, () => keepSandbox(entry, false));

  sandboxes.onChange((before, after) => {
    const wasReady = before !== undefined && isReady(before.record);
    if (after) carefully(after.record.id, () => keepSandbox(after, wasReady));
    else if (before) carefully(before.record.id, () => files.dropSandbox(before.record.id));
  });
  containers.onChange((before, after) => {
    if (after) carefully(after.record.sandboxId, () => keepContainer(after));
    else if (before) {
      const { id, sandboxId } = before.record;
      carefully(sandboxId, () => files.dropContainer(sandboxId, id));
    }
  });
  return restored;
}

function restore({ files, sandboxes, containers, cri, log }: PodKeeperDeps): readonly SandboxId[] {
  const pods = sandboxCodec(cri);
  const specs = containerCodec(cri);
  return files.ids().flatMap((id) => {
    // One that cannot be read is in the journal nevertheless.
    if (sandboxes.knows(id)) return [];
    try {
      const copy = files.read(id);
      const record = parseSandboxRecord(copy.sandbox.record);
      const known = sandboxes.byAttempt(record.podUid, record.attempt);
      if (known || record.id !== id || !isReady(record)) return [];
      const entries = copy.containers.map((row) => ({
        record: parseContainerRecord(row.record),
        config: specs.decode(row.request),
      }));
      sandboxes.add(record, pods.decode(copy.sandbox.request));
      for (const entry of entries) if (entry.record.sandboxId === id) containers.add(entry.record, entry.config);
      log.warn('the journal did not know a pod that runs; it was made anew from its copy', {
        ...{ sandboxId: id, pod: `${record.podNamespace}/${record.podName}`, containers: entries.length },
      });
      return [id];
    } catch (error) {
      log.error('the copy of a pod cannot be read', { sandboxId: id, reason: errorMessage(error) });
      return [];
    }
  });
}

/** Without its network, and the note of how it was made, a pod cannot be kept. */
export async function requireNetworks(
  restored: readonly SandboxId[],
  { network, sandboxes }: { readonly network: Pick<PodNetwork, 'list'>; readonly sandboxes: SandboxStore },
  fail: (id: SandboxId, reason: string) => void,
  signal: AbortSignal,
): Promise<void> {
  // An address of the cloud's own came with the machine, and is nothing on this node.
  const onNode = restored.filter((id) => !hasDirectLink(sandboxes.get(id)?.record));
  if (onNode.length === 0) return;
  const there = new Set(await network.list(signal));
  for (const id of onNode) {
    if (!there.has(id)) fail(id, "the journal was lost, and with it the pod's network");
  }
}
