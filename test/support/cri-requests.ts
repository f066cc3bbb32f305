/** Requests as a server reads them: small valid ones, with parts replaced. Made by the real encoder and decoder. */
import type { MethodDefinition } from '@grpc/proto-loader';
import type { ContainerConfig, ContainerConfig__Output } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig, PodSandboxConfig__Output } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import { loadCri } from '../../src/rpc/load.ts';

const { RuntimeService } = loadCri();

function received<In, Full>(
  method: Pick<MethodDefinition<In, never, Full, never>, 'requestSerialize' | 'requestDeserialize'>,
  message: NoInfer<In>,
): Full {
  return method.requestDeserialize(method.requestSerialize(message));
}

/** What a client sends for a small pod; `change` replaces whole fields. */
export function podRequest(change: PodSandboxConfig = {}): PodSandboxConfig {
  return { metadata: { name: 'web', uid: 'u-1', namespace: 'default', attempt: 0 }, ...change };
}

/** What a client sends for a small container. */
export function containerRequest(change: ContainerConfig = {}): ContainerConfig {
  return { metadata: { name: 'main', attempt: 0 }, image: { image: 'registry.example/busybox:1' }, ...change };
}

/** The same as the server sees it. `change` may hold values that no type allows. */
export function sandboxConfig(change: object = {}): PodSandboxConfig__Output {
  const { config } = received(RuntimeService.service.RunPodSandbox, { config: podRequest(change) });
  if (!config) throw new Error('the configuration got lost');
  return config;
}

export function containerConfig(change: object = {}): ContainerConfig__Output {
  const { config } = received(RuntimeService.service.CreateContainer, { config: containerRequest(change) });
  if (!config) throw new Error('the configuration got lost');
  return config;
}
