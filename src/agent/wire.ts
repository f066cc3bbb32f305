/**
 * The two fields the agent itself reads from containerd's answers, decoded by hand: the whole CRI schema would double
 * the agent's start-up time for one shutdown.
 */
import { InfraletError } from '../base/errors.ts';

interface Field {
  readonly number: number;
  /** Length-delimited content, or the varint's value. */
  readonly value: Buffer | number;
}

/** Top-level fields of a protobuf message. */
function* fields(message: Buffer): Generator<Field> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 0; shift < 64; shift += 7) {
      const byte = message[at];
      if (byte === undefined) throw broken();
      at += 1;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    throw broken();
  };
  const skip = (count: number): Buffer => {
    if (at + count > message.length) throw broken();
    at += count;
    return message.subarray(at - count, at);
  };
  while (at < message.length) {
    const tag = varint();
    const number = Math.floor(tag / 8);
    switch (tag % 8) {
      case 0:
        yield { number, value: varint() };
        break;
      case 1:
        skip(8);
        break;
      case 2:
        yield { number, value: skip(varint()) };
        break;
      case 5:
        skip(4);
        break;
      default:
        throw broken();
    }
  }
}

/** ids of a ListContainersResponse: repeated Container containers = 1; Container.id = 1, Container.state = 6. */
export function runningContainers(response: Buffer): readonly string[] {
  const RUNNING = 1;
  const ids: string[] = [];
  for (const { number, value } of fields(response)) {
    if (number !== 1 || typeof value === 'number') continue;
    let id = '';
    let state = 0;
    for (const field of fields(value)) {
      if (field.number === 1 && typeof field.value !== 'number') id = field.value.toString();
      if (field.number === 6 && typeof field.value === 'number') state = field.value;
    }
    if (id !== '' && state === RUNNING) ids.push(id);
  }
  return ids;
}

/** StopContainerRequest: container_id = 1, timeout = 2 (seconds). */
export function stopContainerRequest(id: string, seconds: number): Buffer {
  const name = Buffer.from(id);
  return Buffer.concat([Buffer.from([0x0a]), varint(name.length), name, Buffer.from([0x10]), varint(seconds)]);
}

/**
 * RunPodSandboxRequest with config = 1: metadata = 1 (name = 1, uid = 2, namespace = 3), hostname = 2, log_directory = 3,
 * linux = 8: cgroup_parent = 1, security_context = 2: namespace_options = 1 (network = 1, pid = 2, ipc = 3; POD is 0,
 * CONTAINER 1), seccomp = 9 (profile_type = 1; RuntimeDefault is 0).
 */
export function runPodSandboxRequest(pod: PodFacts): Buffer {
  return part(1, podSandboxConfig(pod));
}

export interface PodFacts {
  readonly name: string;
  readonly namespace: string;
  readonly hostname: string;
  readonly logDirectory: string;
  readonly cgroupParent: string;
}

/** The PodSandboxConfig of it. */
export function podSandboxConfig(pod: PodFacts): Buffer {
  const metadata = Buffer.concat([text(1, pod.name), text(2, pod.name), text(3, pod.namespace)]);
  const namespaces = Buffer.from([0x08, 0, 0x10, 1, 0x18, 0]);
  const security = Buffer.concat([part(1, namespaces), part(9, Buffer.from([0x08, 0]))]);
  const linux = Buffer.concat([text(1, pod.cgroupParent), part(2, security)]);
  return Buffer.concat([part(1, metadata), text(2, pod.hostname), text(3, pod.logDirectory), part(8, linux)]);
}

/**
 * CreateContainerRequest: pod_sandbox_id = 1, config = 2, sandbox_config = 3; ContainerConfig: metadata = 1 (name = 1),
 * image = 2 (image = 1), command = 3, log_path = 11, linux = 15 (resources = 1: cpu_shares = 3; security_context = 2).
 */
export function createContainerRequest(container: {
  readonly sandboxId: string;
  /** A PodSandboxConfig. */
  readonly sandbox: Buffer;
  readonly name: string;
  readonly image: string;
  readonly command: readonly string[];
  readonly logPath: string;
}): Buffer {
  const linux = Buffer.concat([part(1, Buffer.from([0x18, 2])), part(2, Buffer.alloc(0))]);
  const config = Buffer.concat([
    part(1, text(1, container.name)),
    part(2, text(1, container.image)),
    ...container.command.map((word) => text(3, word)),
    text(11, container.logPath),
    part(15, linux),
  ]);
  return Buffer.concat([text(1, container.sandboxId), part(2, config), part(3, container.sandbox)]);
}

/** A request whose first field is an id, and the second, if any, a list of words: ExecSyncRequest and simpler ones. */
export function idRequest(id: string, ...words: readonly string[]): Buffer {
  return Buffer.concat([text(1, id), ...words.map((word) => text(2, word))]);
}

/** PullImageRequest and RemoveImageRequest: image = 1 (image = 1). */
export function imageRequest(reference: string): Buffer {
  return part(1, text(1, reference));
}

/** The text in field 1: the id or reference in the answers of RunPodSandbox, CreateContainer and PullImage. */
export function firstText(response: Buffer): string {
  for (const { number, value } of fields(response))
    if (number === 1 && typeof value !== 'number') return value.toString();
  throw broken();
}

function part(number: number, content: Buffer): Buffer {
  return Buffer.concat([varint(number * 8 + 2), varint(content.length), content]);
}

function text(number: number, content: string): Buffer {
  return part(number, Buffer.from(content));
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let rest = value;
  for (; rest >= 0x80; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80);
  bytes.push(rest);
  return Buffer.from(bytes);
}

function broken(): InfraletError {
  return new InfraletError('DATA_LOSS', 'containerd sent a message that is not protobuf');
}
