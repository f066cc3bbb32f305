/** A registry, a store and a scratch directory for the tests of the image service; all gone when disposed of. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../src/base/time.ts';
import { configSchema } from '../../src/config/schema.ts';
import type { Platform } from '../../src/image/manifest.ts';
import { hostPlatform } from '../../src/image/platform.ts';
import type { ImageService, RegistryAuth } from '../../src/image/service.ts';
import { createImageService } from '../../src/image/store-service.ts';
import { type Logger, nullLogger } from '../../src/telemetry/log.ts';

export type Store = ImageService & AsyncDisposable;

export async function scratchDirectory(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'infralet-image-'));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export function openStore(
  stateDir: string,
  image: Readonly<Record<string, unknown>> = {},
  log: Logger = nullLogger,
  platform: Platform = hostPlatform(),
): Promise<Store> {
  return createImageService({
    ...{ config: configSchema.parse({ image }).image, stateDir, platform, log, clock: systemClock },
  });
}

/** AuthConfig with the given fields, the others empty. */
export function registryAuth(fields: Partial<RegistryAuth>): RegistryAuth {
  const none = { username: '', password: '', auth: '', serverAddress: '', identityToken: '', registryToken: '' };
  return { ...none, ...fields };
}

export function soon(seconds = 60): AbortSignal {
  return AbortSignal.timeout(seconds * 1000);
}
