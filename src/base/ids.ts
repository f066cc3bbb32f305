/** Branded ids. Each brand is made by one parser and one generator, nowhere else. */
import { randomBytes } from 'node:crypto';
import { InfraletError } from './errors.ts';

declare const brand: unique symbol;
type Branded<Name extends string> = string & { readonly [brand]: Name };

/** 32 lower-case hex digits, random: says nothing about the machine behind it. */
export type SandboxId = Branded<'SandboxId'>;
/** 64 lower-case hex digits, random; made on the node, never taken from a guest. */
export type ContainerId = Branded<'ContainerId'>;
/** `sha256:` and 64 hex digits: the digest of an OCI blob. */
export type Digest = Branded<'Digest'>;
/** A provider's own name for a machine; opaque. */
export type InstanceId = Branded<'InstanceId'>;

const HEX32 = /^[0-9a-f]{32}$/;
const HEX64 = /^[0-9a-f]{64}$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function newSandboxId(): SandboxId {
  return randomBytes(16).toString('hex') as SandboxId;
}

export function newContainerId(): ContainerId {
  return randomBytes(32).toString('hex') as ContainerId;
}

export function parseSandboxId(text: string): SandboxId {
  if (HEX32.test(text)) return text as SandboxId;
  throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not a sandbox id (32 hex digits)`);
}

export function parseContainerId(text: string): ContainerId {
  if (HEX64.test(text)) return text as ContainerId;
  throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not a container id (64 hex digits)`);
}

export function parseDigest(text: string): Digest {
  if (DIGEST.test(text)) return text as Digest;
  throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not a sha256 digest`);
}

export function parseInstanceId(text: string): InstanceId {
  if (text.length > 0 && text.length <= 256) return text as InstanceId;
  throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not an instance id (1 to 256 characters)`);
}
