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

/** The profile as the machine's containerd gets it; a Localhost profile is carried there first. */
export async function carrySeccomp(
  profile: SecurityProfile__Output | null,
  channel: AgentChannel,
  signal: AbortSignal,
): Promise<SecurityProfile | null> {
  if (profile?.profileType !== 'Localhost') return profile;
  const path = profile.localhostRef.startsWith(PREFIX)
    ? profile.localhostRef.slice(PREFIX.length)
    : profile.localhostRef;
  const content = await readProfile(path);
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

async function readProfile(path: string): Promise<Buffer> {
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
