/** Mounts that cannot be honoured, each with its reason and a way out. Pure. */
import { InfraletError } from '../base/errors.ts';
import type { Config } from '../config/schema.ts';
import type { Mount__Output } from '../gen/runtime/v1/Mount.ts';
import { classifyMount } from './classify.ts';
import type { Source } from './source.ts';

/** Before anything on the node is looked at or made. */
export function refuseMount(mount: Mount__Output, policy: Config['policy']): void {
  if (mount.image && mount.image.image !== '') {
    refuse(
      mount,
      "image volumes are not supported: the machine's containerd has none",
      'copy the files with an init container into an emptyDir',
    );
  }
  if (classifyMount(mount.hostPath) === 'hostPath' && policy.hostPath === 'deny') {
    refuse(
      mount,
      `hostPath ${mount.hostPath} is refused by this node's policy`,
      'policy.hostPath in the configuration',
    );
  }
}

/** What the way into the machine cannot do. */
export function refuseWay(mount: Mount__Output, { way, directory }: Source): void {
  if (way.kind === 'share' && !directory && !mount.readonly) {
    refuse(
      mount,
      `${mount.hostPath} is no directory; only directories of the node can be shared with a machine`,
      'mount the directory that it lies in, or mount it read-only (it is copied)',
    );
  }
  const ofMachine = way.kind === 'emptyDir' || way.kind === 'emptyDirPart';
  if (mount.propagation === 'PROPAGATION_BIDIRECTIONAL' && !ofMachine) {
    refuse(
      mount,
      'Bidirectional mount propagation: what is mounted in a machine cannot appear on its node',
      'an emptyDir propagates between the containers of the pod',
    );
  }
  if (mount.propagation === 'PROPAGATION_HOST_TO_CONTAINER' && way.kind === 'copy') {
    refuse(
      mount,
      'HostToContainer mount propagation: this mount is copied into the machine and sees no later mounts of the node',
      'policy.hostPath: share in the configuration',
    );
  }
}

function refuse(mount: Mount__Output, why: string, hint: string): never {
  throw new InfraletError('FAILED_PRECONDITION', `mount at ${mount.containerPath}: ${why}`, { hint });
}
