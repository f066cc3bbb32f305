/**
 * Registry credentials on their way to skopeo. They travel in a file of mode 0600 inside a directory of mode 0700 that
 * lives as long as the program runs: never in argv, in the environment or in a log.
 */
import { createHash } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { InfraletError } from '../base/errors.ts';
import { registryOfServerAddress } from './reference.ts';
import type { RegistryAuth } from './service.ts';

export interface Credentials {
  readonly username: string;
  readonly password: string;
  /** OAuth2 refresh token, as cloud registries hand out; empty where there is none. */
  readonly identityToken: string;
}

/** What of `auth` applies to `registry`; undefined means anonymous. Throws INVALID_ARGUMENT for what cannot be used. */
export function credentialsFor(auth: RegistryAuth | undefined, registry: string): Credentials | undefined {
  if (!auth) return undefined;
  // A credential belongs to its server only; sending it elsewhere would give it away. The CRI's way is to go on without.
  if (auth.serverAddress !== '' && registryOfServerAddress(auth.serverAddress) !== registry) return undefined;
  const { username, password, identityToken } = auth;
  if (identityToken !== '') return { username, password: '', identityToken };
  if (username !== '' || password !== '') return { username, password, identityToken: '' };
  if (auth.auth !== '') return { ...decodeBasic(auth.auth, registry), identityToken: '' };
  if (auth.registryToken !== '') {
    throw new InfraletError(
      'INVALID_ARGUMENT',
      `a registry token cannot be used for ${registry}: skopeo takes it on its command line only, where every user of the node could read it`,
      {
        hint: 'give username and password, auth or identityToken in the pull secret',
      },
    );
  }
  return undefined;
}

/** Key under which equal pulls share their work; says nothing about the secret. */
export function credentialsKey(credentials: Credentials | undefined): string {
  if (!credentials) return 'anonymous';
  const { username, password, identityToken } = credentials;
  return createHash('sha256')
    .update(JSON.stringify([username, password, identityToken]))
    .digest('hex');
}

/** Writes an auth file that holds these credentials for this registry alone; disposing deletes it. */
export async function writeAuthFile(
  path: string,
  registry: string,
  credentials: Credentials | undefined,
): Promise<AsyncDisposable & { readonly path: string }> {
  const auths = credentials ? { [registry]: entry(credentials) } : {};
  await writeFile(path, JSON.stringify({ auths }), { mode: 0o600, flag: 'wx' });
  return { path, [Symbol.asyncDispose]: () => rm(path, { force: true }) };
}

function entry(credentials: Credentials): Readonly<Record<string, string>> {
  // Without a user name the entry would be skipped as malformed, identity token and all.
  const user = credentials.username === '' ? '<token>' : credentials.username;
  const auth = Buffer.from(`${user}:${credentials.password}`).toString('base64');
  return credentials.identityToken === '' ? { auth } : { auth, identitytoken: credentials.identityToken };
}

function decodeBasic(auth: string, registry: string): { readonly username: string; readonly password: string } {
  const text = Buffer.from(auth, 'base64').toString('utf8');
  const colon = text.indexOf(':');
  if (colon < 0) {
    throw new InfraletError('INVALID_ARGUMENT', `the auth field for ${registry} is not base64 of "username:password"`, {
      hint: 'make the pull secret with `kubectl create secret docker-registry`',
    });
  }
  // Some tools pad the password with NUL bytes; containerd strips them as well.
  return { username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') };
}
