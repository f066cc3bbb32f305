/**
 * Brings a container's mounts into its machine and says where they are there. A host path is carried once per sandbox:
 * containers of a pod that mount the same path share what is in the machine, as they would share it on the node.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { lstat, mkdir, realpath } from 'node:fs/promises';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Config } from '../config/schema.ts';
import type { Mount, Mount__Output } from '../gen/runtime/v1/Mount.ts';
import type { AgentChannel, GuestFile, GuestRoot } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';
import { classifyMount, emptyDirOfSubPath, type MountKind } from './classify.ts';
import { readTree } from './tree.ts';

/** One mount may be large; the machine may be emulated. */
const COPY_MS = 600_000;

export class MountCarrier {
  /** Writable host paths that each sandbox has already, with their place in the machine. */
  readonly #carried = new Map<SandboxId, Map<string, string>>();
  readonly #policy: Config['policy'];
  readonly #log: Logger;

  constructor(options: { readonly policy: Config['policy']; readonly log: Logger }) {
    this.#policy = options.policy;
    this.#log = options.log;
  }

  /** The mounts as the guest's containerd gets them. Throws for what cannot be honoured, naming the mount and the reason. */
  async carry(
    sandboxId: SandboxId,
    mounts: readonly Mount__Output[],
    channel: AgentChannel,
    signal: AbortSignal,
  ): Promise<readonly Mount[]> {
    const carried: Mount[] = [];
    for (const mount of mounts) carried.push(await this.#carryOne(sandboxId, mount, channel, signal));
    return carried;
  }

  async #carryOne(
    sandboxId: SandboxId,
    mount: Mount__Output,
    channel: AgentChannel,
    signal: AbortSignal,
  ): Promise<Mount> {
    this.#refuse(mount);
    const kind = classifyMount(mount.hostPath);
    const hostPath = await resolved(mount.hostPath);
    const known = this.#carried.get(sandboxId)?.get(hostPath);
    // What containers may have written to stays; what only the kubelet writes is brought up to date.
    const guestPath =
      known !== undefined && kind !== 'api' && kind !== 'subPath'
        ? known
        : await this.#copy(kind, hostPath, channel, signal);
    const ofSandbox = this.#carried.get(sandboxId) ?? new Map<string, string>();
    this.#carried.set(sandboxId, ofSandbox.set(hostPath, guestPath));
    return {
      containerPath: mount.containerPath,
      hostPath: guestPath,
      readonly: mount.readonly,
      recursiveReadOnly: mount.recursiveReadOnly,
      propagation: mount.propagation,
      uidMappings: mount.uidMappings,
      gidMappings: mount.gidMappings,
      mountOptions: mount.mountOptions,
      // The guest kernel has no SELinux: there is nothing to relabel.
      selinuxRelabel: false,
    };
  }

  #refuse(mount: Mount__Output): void {
    const refuse = (why: string, hint: string): never => {
      throw new InfraletError('FAILED_PRECONDITION', `mount at ${mount.containerPath}: ${why}`, { hint });
    };
    if (mount.image && mount.image.image !== '') {
      refuse('image volumes are not supported yet', 'copy the files with an init container into an emptyDir');
    }
    const kind = classifyMount(mount.hostPath);
    if (kind === 'hostPath' && this.#policy.hostPath === 'deny') {
      refuse(`hostPath ${mount.hostPath} is refused by this node's policy`, 'policy.hostPath in the configuration');
    }
    const emptyDir = emptyDirOfSubPath(mount.hostPath);
    if (emptyDir !== undefined && existsSync(emptyDir)) {
      refuse(
        'a subPath of an emptyDir is not supported yet: each container would get a copy of its own',
        'mount the whole emptyDir, or choose the directory inside the container',
      );
    }
    if (kind === 'plugin' && !mount.readonly) {
      refuse(
        `${mount.hostPath} is a writable volume of a plugin; it cannot be shared with a machine yet`,
        'mount it read-only (it is copied), or use an emptyDir',
      );
    }
  }

  async #copy(kind: MountKind, hostPath: string, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    const root: GuestRoot = kind === 'emptyDir' ? 'ROOT_SCRATCH' : 'ROOT_VOLUMES';
    const path = volumeName(hostPath);
    const limits = { maxBytes: this.#policy.maxCopyBytes, maxFiles: this.#policy.maxCopyFiles };
    const files: AsyncIterable<GuestFile> = readTree(hostPath, limits, (skipped, why) =>
      this.#log.warn('left out of a mount: it cannot be carried into a machine', {
        path: skipped,
        why,
        mount: hostPath,
      }),
    );
    return await channel.putFiles({ root, path, replace: false }, files, { signal, timeoutMs: COPY_MS });
  }

  forget(sandboxId: SandboxId): void {
    this.#carried.delete(sandboxId);
  }
}

/** Name of a carried host path below the agent's root. */
export function volumeName(hostPath: string): string {
  return createHash('sha256').update(hostPath).digest('hex').slice(0, 32);
}

/** The real path of a mount's source; one that is missing is made, as other runtimes do. */
async function resolved(hostPath: string): Promise<string> {
  try {
    await lstat(hostPath);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
    await mkdir(hostPath, { recursive: true });
  }
  return await realpath(hostPath);
}
