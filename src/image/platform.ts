/** The platform of this node's machines: they have the host's processor, and Linux. */
import { arch } from 'node:process';
import type { Platform } from './manifest.ts';

const NAMES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64', ppc64: 'ppc64le' };

export function hostPlatform(): Platform {
  return { os: 'linux', architecture: NAMES[arch] ?? arch };
}
