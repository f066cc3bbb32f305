/** Seccomp profiles of type Localhost: the file lies on the node, containerd in the machine needs it there. */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { SecurityProfile, SecurityProfile__Output } from '../gen/runtime/v1/SecurityProfile.ts';
import type { AgentChannel } from '../guest/channel.ts';

/** The largest profile in use (the default one) has 12 KiB. */
const MAX_PROFILE_BYTES = 1024 * 1024;
const CALL_MS = 60_000;
/** Older clients put it before the path. */
const PREFIX = 'localhost/';

/** Both fields of a security context that name a profile. */
interface SeccompFields {
  readonly seccomp: SecurityProfile__Output | null;
  readonly seccompProfilePath: string;
}

/** The profile as the machine's containerd gets it; a Localhost profile is carried there first. */
export async function carrySeccomp(
  context: SeccompFields | null,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<SecurityProfile | null> {
  const profile = seccompProfile(context);
  if (profile?.profileType !== 'Localhost') return profile;
  const content = await readProfile(profile);
  const name = `${createHash('sha256').update(content).digest('hex').slice(0, 32)}.json`;
  const now = Date.now();
  const file = { path: '', kind: 'file', mode: 0o444, uid: 0, gid: 0, mtimeMs: now, size: content.length } as const;
  const target = { root: 'ROOT_SECCOMP', path: name, replace: true } as const;
  const files = (async function* () {
    yield {
      ...file,
      content: (async function* () {
        yield content;
      })(),
    };
  })();
  return { ...profile, localhostRef: await channel.putFiles(target, files, { signal, timeoutMs: CALL_MS }) };
}

/** Refuses a profile that is not on the node, before anything is made for it. */
export async function requireSeccomp(context: SeccompFields | null): Promise<void> {
  const profile = seccompProfile(context);
  if (profile?.profileType === 'Localhost') await readProfile(profile);
}

/** The profile that counts: the field, else what the deprecated path says; null: none was asked for. */
export function seccompProfile(context: SeccompFields | null): SecurityProfile__Output | null {
  if (!context || context.seccomp || context.seccompProfilePath === '') return context?.seccomp ?? null;
  return profileOfPath(context.seccompProfilePath) ?? null;
}

/** A profile in the deprecated form; undefined when it is none. */
export function profileOfPath(path: string): SecurityProfile__Output | undefined {
  if (path === 'unconfined') return { profileType: 'Unconfined', localhostRef: '' };
  if (path === 'runtime/default' || path === 'docker/default')
    return { profileType: 'RuntimeDefault', localhostRef: '' };
  if (!path.startsWith(PREFIX)) return undefined;
  return { profileType: 'Localhost', localhostRef: path.slice(PREFIX.length) };
}

async function readProfile({ localhostRef }: SecurityProfile__Output): Promise<Buffer> {
  const path = localhostRef.startsWith(PREFIX) ? localhostRef.slice(PREFIX.length) : localhostRef;
  try {
    const { size } = await stat(path);
    if (size > MAX_PROFILE_BYTES) throw new InfraletError('INVALID_ARGUMENT', `it has ${size} bytes`);
    const content = await readFile(path);
    JSON.parse(content.toString());
    return content;
  } catch (error) {
    throw new InfraletError('INVALID_ARGUMENT', `the seccomp profile ${path} cannot be used: ${errorMessage(error)}`, {
      cause: error,
      hint: 'it must be a JSON file on this node, of at most 1 MiB',
    });
  }
}
