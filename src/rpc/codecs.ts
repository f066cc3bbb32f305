/** CRI configurations as protobuf bytes, for the journal: what the kubelet sent, whole, and nothing to keep in step. */
import { InfraletError } from '../base/errors.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { CriPackage } from './load.ts';

export interface Codec<T> {
  encode(value: T): Uint8Array;
  /** Throws DATA_LOSS for bytes that are no such message. */
  decode(bytes: Uint8Array): T;
}

export interface SandboxCodec extends Codec<PodSandboxConfig__Output> {
  /** The configuration of a sandbox that has no pod yet. */
  readonly blank: PodSandboxConfig__Output;
}

export function sandboxCodec(cri: CriPackage): SandboxCodec {
  const { RunPodSandbox } = cri.RuntimeService.service;
  return {
    blank: present(RunPodSandbox.requestDeserialize(RunPodSandbox.requestSerialize({ config: {} })).config),
    encode: (config) => RunPodSandbox.requestSerialize({ config }),
    decode: (bytes) => present(RunPodSandbox.requestDeserialize(Buffer.from(bytes)).config),
  };
}

export function containerCodec(cri: CriPackage): Codec<ContainerConfig__Output> {
  const { CreateContainer } = cri.RuntimeService.service;
  return {
    encode: (config) => CreateContainer.requestSerialize({ config }),
    decode: (bytes) => present(CreateContainer.requestDeserialize(Buffer.from(bytes)).config),
  };
}

function present<T>(value: T | null): T {
  if (value === null) throw new InfraletError('DATA_LOSS', 'the journal holds an empty configuration');
  return value;
}
