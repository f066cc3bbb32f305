/** What images are made for: Linux, on the processor of the machines that run them. */
import { arch } from 'node:process';
import type { Platform } from './manifest.ts';

const NAMES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', ppc64: 'ppc64le' };

export function linuxOn(architecture: string): Platform {
  return { os: 'linux', architecture };
}

/** Of this host's own programs, of which the demonstration's image is made. */
export function hostPlatform(): Platform {
  return linuxOn(NAMES[arch] ?? arch);
}
