/** Images and credentials between the CRI's messages and the image store. */
import type { AuthConfig__Output } from '../../gen/runtime/v1/AuthConfig.ts';
import type { Image } from '../../gen/runtime/v1/Image.ts';
import type { ImageRecord, RegistryAuth } from '../../image/service.ts';

export function criImage(record: ImageRecord): Image {
  return {
    id: record.id,
    repoTags: [...record.repoTags],
    repoDigests: [...record.repoDigests],
    size: record.size,
    uid: record.uid === undefined ? null : { value: record.uid },
    username: record.username,
    spec: { image: record.id, annotations: { ...record.annotations } },
    pinned: record.pinned,
  };
}

/** Undefined when the message names no credential at all. */
export function registryAuth(auth: AuthConfig__Output | null): RegistryAuth | undefined {
  if (!auth) return undefined;
  const { username, password, identityToken, registryToken, serverAddress } = auth;
  const given = [username, password, auth.auth, identityToken, registryToken].some((field) => field !== '');
  return given ? { username, password, auth: auth.auth, serverAddress, identityToken, registryToken } : undefined;
}
