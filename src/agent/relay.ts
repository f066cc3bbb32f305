/** `Call`: one unary RPC of containerd's CRI, relayed as bytes. The list says what the daemon may ask for at all. */
import { InfraletError } from '../base/errors.ts';
import type { Containerd } from './containerd.ts';
import { notePassed } from './memory.ts';
import { LIMITS } from './options.ts';

const RUNTIME = [
  'Version',
  'Status',
  'RunPodSandbox',
  'StopPodSandbox',
  'RemovePodSandbox',
  'PodSandboxStatus',
  'ListPodSandbox',
  'CreateContainer',
  'StartContainer',
  'StopContainer',
  'RemoveContainer',
  'ListContainers',
  'ContainerStatus',
  'UpdateContainerResources',
  'ReopenContainerLog',
  'ExecSync',
  'Exec',
  'Attach',
  'PortForward',
  'ContainerStats',
  'ListContainerStats',
  'PodSandboxStats',
  'ListPodSandboxStats',
  'RuntimeConfig',
] as const;
/** containerd's own store: the specification that a container is started with. */
const CONTAINERS = ['Get', 'Update'] as const;
const IMAGE = ['ListImages', 'ImageStatus', 'PullImage', 'RemoveImage', 'ImageFsInfo'] as const;

const ALLOWED: ReadonlySet<string> = new Set([
  ...RUNTIME.map((name) => `/runtime.v1.RuntimeService/${name}`),
  ...CONTAINERS.map((name) => `/containerd.services.containers.v1.Containers/${name}`),
  ...IMAGE.map((name) => `/runtime.v1.ImageService/${name}`),
]);

export class Relay {
  readonly #containerd: Containerd;
  #running = 0;

  constructor(containerd: Containerd) {
    this.#containerd = containerd;
  }

  /** `deadline` is absolute, milliseconds. Fails with containerd's own status. */
  async call(method: string, payload: Buffer, deadline: number, signal: AbortSignal): Promise<Buffer> {
    if (!ALLOWED.has(method)) {
      throw new InfraletError('PERMISSION_DENIED', `${JSON.stringify(method.slice(0, 100))} is not relayed`);
    }
    if (this.#running >= LIMITS.relayedCalls) {
      throw new InfraletError('RESOURCE_EXHAUSTED', `${LIMITS.relayedCalls} calls are in progress already`);
    }
    this.#running += 1;
    try {
      const reply = await this.#containerd.call(method, payload, deadline, signal);
      notePassed(payload.length + reply.length);
      return reply;
    } finally {
      this.#running -= 1;
    }
  }
}
