/**
 * Brings a container's mounts into its machine and says where they are there. A host path is carried once per sandbox:
 * containers of a pod that mount the same path share what is in the machine, as they would share it on the node.
 */
import { createHash } from 'node:crypto';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Clock } from '../base/time.ts';
import type { Config } from '../config/schema.ts';
import type { Mount, Mount__Output } from '../gen/runtime/v1/Mount.ts';
import type { AgentChannel, CallOptions, GuestFile } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';
import { carryEmptyDir, makeDirectory } from './empty-dir.ts';
import { type LiveVolume, LiveVolumes } from './live.ts';
import { pathWithin, readMountTable } from './mount-table.ts';
import { refuseMount, refuseWay } from './refusals.ts';
import { Shares } from './share/shares.ts';
import { lookAgain, lookAt, type Source } from './source.ts';
import { type OnSkipped, type TreeLimits, TreeReader } from './tree.ts';

/** One mount may be large; the machine may be emulated. */
const COPY_MS = 600_000;
/** Making a directory or mounting a small file system. */
const CALL_MS = 60_000;

export interface MountCarrierOptions {
  readonly policy: Config['policy'];
  readonly volume: Config['volume'];
  readonly shares: { readonly directory: string; readonly programs: string };
  readonly channelOf: (id: SandboxId) => AgentChannel | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

export class MountCarrier implements AsyncDisposable {
  /** Copied host paths that each sandbox has already. */
  readonly #carried = new Map<SandboxId, Set<string>>();
  readonly #policy: Config['policy'];
  readonly #limits: TreeLimits;
  readonly #log: Logger;
  readonly #live: LiveVolumes;
  readonly #shares: Shares;
  readonly #ending = new Set<Promise<void>>();

  constructor(options: MountCarrierOptions) {
    this.#policy = options.policy;
    this.#limits = { maxBytes: options.policy.maxCopyBytes, maxFiles: options.policy.maxCopyFiles };
    this.#log = options.log;
    this.#live = new LiveVolumes({ ...options, settings: options.volume, limits: this.#limits });
    this.#shares = new Shares({ ...options.shares, log: options.log });
  }

  /** The mounts as the guest's containerd gets them. Throws for what cannot be honoured, naming the mount and the reason. */
  async carry(
    sandboxId: SandboxId,
    mounts: readonly Mount__Output[],
    channel: AgentChannel,
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    const carried: Mount[] = [];
    for (const mount of mounts) {
      refuseMount(mount, this.#policy);
      const source = await lookAt(mount, this.#policy);
      refuseWay(mount, source);
      carried.push({
        containerPath: mount.containerPath,
        hostPath: await this.#bring(sandboxId, source, mount, channel, signal),
        readonly: mount.readonly,
        recursiveReadOnly: mount.recursiveReadOnly,
        propagation: mount.propagation,
        uidMappings: mount.uidMappings,
        gidMappings: mount.gidMappings,
        mountOptions: mount.mountOptions,
        // The guest kernel has no SELinux: there is nothing to relabel.
        selinuxRelabel: false,
      });
    }
    return carried;
  }

  /** What a sandbox has from an earlier life of the daemon: copies stay as its containers have made them. */
  remember(sandboxId: SandboxId, mounts: readonly Mount__Output[]): void {
    for (const { hostPath } of mounts) this.#carriedOf(sandboxId).add(hostPath);
  }

  /** With every new session: volumes that follow the node get what they missed, shares are served again. */
  async resume(
    sandboxId: SandboxId,
    mounts: readonly Mount__Output[],
    channel: AgentChannel,
    signal: AbortSignal,
  ): Promise<void> {
    for (const mount of mounts) {
      try {
        const source = await lookAgain(mount.hostPath, this.#policy);
        const live = liveVolume(sandboxId, source);
        if (live) this.#live.resume(live);
        else if (isShare(source)) {
          this.#later(this.#shares.resume(shareOf(sandboxId, source, mount), channel, signal));
        }
      } catch (error) {
        // The pod is being removed, or its volume was: what it holds in the machine stays as it is.
        if (hasErrno(error, 'ENOENT')) continue;
        const reason = errorMessage(error);
        this.#log.warn('a volume does not work for now', { sandboxId, volume: mount.hostPath, reason });
      }
    }
  }

  /** The machine is gone. */
  forget(sandboxId: SandboxId): void {
    this.#carried.delete(sandboxId);
    this.#live.forget(sandboxId);
    this.#later(this.#shares.forget(sandboxId));
  }

  /** At the start: ends what earlier lives of the daemon have left for sandboxes that are gone. */
  sweep(isKnown: (id: string) => boolean): void {
    this.#later(this.#shares.sweep(isKnown));
  }

  #later(work: Promise<void>): void {
    const done = work
      .catch((error: unknown) =>
        this.#log.warn('a share does not do what it should for now', { reason: errorMessage(error) }),
      )
      .finally(() => this.#ending.delete(done));
    this.#ending.add(done);
  }

  /** Resolves with the path inside the machine. */
  async #bring(
    sandboxId: SandboxId,
    source: Source,
    mount: Mount__Output,
    channel: AgentChannel,
    signal: AbortSignal,
  ): Promise<string> {
    const { way, path } = source;
    const live = liveVolume(sandboxId, source);
    if (live) return await this.#live.add(live, channel, signal);
    if (isShare(source)) return await this.#shares.mount(shareOf(sandboxId, source, mount), channel, signal);
    const options = { signal, timeoutMs: CALL_MS };
    if (way.kind === 'emptyDir') return await carryEmptyDir(path, volumeName(path), channel, options);
    if (way.kind === 'emptyDirPart') return await emptyDirPart(way.emptyDir, source, channel, options);
    return await this.#copy(sandboxId, source, channel, signal);
  }

  async #copy(sandboxId: SandboxId, source: Source, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    const { path, hostPath, way, directory } = source;
    const carried = this.#carriedOf(sandboxId);
    // What containers may have written to stays.
    const keep = carried.has(hostPath) && !(way.kind === 'copy' && way.again);
    const onSkipped: OnSkipped = (skipped, why) =>
      this.#log.warn('left out of a mount: it cannot be carried into a machine', {
        path: skipped,
        why,
        mount: hostPath,
      });
    const reader = new TreeReader(path, this.#limits, onSkipped);
    const target = { root: 'ROOT_VOLUMES', path: volumeName(path), replace: false, keep } as const;
    const guestPath = await channel.putFiles(target, keep && directory ? only(reader.top()) : reader.walk(''), {
      signal,
      timeoutMs: COPY_MS,
    });
    carried.add(hostPath);
    return guestPath;
  }

  #carriedOf(sandboxId: SandboxId): Set<string> {
    const known = this.#carried.get(sandboxId);
    if (known) return known;
    const fresh = new Set<string>();
    this.#carried.set(sandboxId, fresh);
    return fresh;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#live[Symbol.asyncDispose](), this.#shares[Symbol.asyncDispose]()]);
    await Promise.all(this.#ending);
  }
}

/** A subPath of an emptyDir is a directory or file of the machine's; the kubelet's own is only where it would be. */
async function emptyDirPart(
  emptyDir: string,
  { hostPath, path }: Source,
  channel: AgentChannel,
  options: CallOptions,
): Promise<string> {
  const part = pathWithin(await readMountTable(), emptyDir, path);
  if (part === undefined) {
    throw new InfraletError('FAILED_PRECONDITION', `${hostPath} is no part of the emptyDir ${emptyDir}`, {
      hint: 'the daemon must see the mounts of the kubelet: both belong into one mount namespace',
    });
  }
  await carryEmptyDir(emptyDir, volumeName(emptyDir), channel, options);
  return await makeDirectory(path, `${volumeName(emptyDir)}/${part}`, channel, options);
}

async function* only(file: Promise<GuestFile>): AsyncGenerator<GuestFile> {
  yield await file;
}

/** Only directories can be shared; a single file that is mounted read-only is copied. */
function isShare({ way, directory }: Source): boolean {
  return way.kind === 'share' && directory;
}

function shareOf(sandboxId: SandboxId, { path }: Source, { readonly }: Mount__Output) {
  return { sandboxId, source: path, readonly };
}

function liveVolume(sandboxId: SandboxId, { path, way }: Source): LiveVolume | undefined {
  if (way.kind !== 'live') return undefined;
  return { sandboxId, source: path, kind: way.entry, name: volumeName(path) };
}

/** Name of a carried host path below the agent's root. */
export function volumeName(hostPath: string): string {
  return createHash('sha256').update(hostPath).digest('hex').slice(0, 32);
}
