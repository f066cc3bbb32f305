/** `Configure`: clock, randomness and host name, which a clone inherits from its template and must not keep. */
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import type { ConfigureRequest__Output } from '../gen/infralet/agent/v1/ConfigureRequest.ts';
import type { PodNic__Output } from '../gen/infralet/agent/v1/PodNic.ts';
import { runCommand } from './commands.ts';
import { type AgentOptions, LIMITS } from './options.ts';

/** RFC 1123 name, as the kernel takes it. */
const HOSTNAME = /^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?$/i;
const MAC = /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i;
const MAX_ENTROPY = 4096;

export async function configure(request: ConfigureRequest__Output, options: AgentOptions): Promise<void> {
  if (request.entropy.length > MAX_ENTROPY) throw new InfraletError('INVALID_ARGUMENT', 'too much entropy at once');
  if (request.hostname !== '' && !HOSTNAME.test(request.hostname)) {
    throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(request.hostname)} is not a host name`);
  }
  if (request.entropy.length > 0) mixEntropy(request.entropy, options.entropyFile);
  if (request.hostname !== '') writeFileSync(options.hostnameFile, request.hostname);
  const clockMs = Number(BigInt(request.clockNanos) / 1_000_000n);
  if (clockMs > 0) await setClock(clockMs, options.dateCommand);
  if (request.podNic) await preparePodNic(request.podNic, options.nicsDir);
}

async function preparePodNic({ foundBy, mac, mtu }: PodNic__Output, nicsDir: string): Promise<void> {
  if (!MAC.test(foundBy) || !MAC.test(mac))
    throw new InfraletError('INVALID_ARGUMENT', 'a hardware address is malformed');
  if (mtu < 68 || mtu > 65_535) throw new InfraletError('INVALID_ARGUMENT', `${mtu} is no MTU`);
  const address = (nic: string): string => readFileSync(join(nicsDir, nic, 'address'), 'utf8').trim();
  const nic = readdirSync(nicsDir).find((name) => address(name) === foundBy.toLowerCase());
  if (nic === undefined) return;
  await runCommand('ip', ['link', 'set', 'dev', nic, 'address', mac, 'mtu', String(mtu)]);
}

/**
 * Writing to the device mixes the bytes into the pool but credits no entropy; crediting needs an ioctl that Node cannot
 * make. That is enough against twins: since Linux 5.18 the generator reseeds from the pool, and a running generator
 * never runs dry.
 */
function mixEntropy(bytes: Uint8Array, file: string): void {
  const fd = openSync(file, 'a');
  try {
    writeSync(fd, bytes);
  } finally {
    closeSync(fd);
  }
}

/** Steps the clock, unless it is right already. */
export async function setClock(targetMs: number, dateCommand: string): Promise<void> {
  const asked = Date.now();
  if (Math.abs(asked - targetMs) <= LIMITS.clockToleranceMs) return;
  // Only time can pass between the two: monotonic, since the wall clock is what is being set.
  const since = performance.now();
  const target = (): number => targetMs + (performance.now() - since);
  try {
    await runCommand(dateCommand, ['-s', `@${(target() / 1000).toFixed(3)}`]);
  } catch {
    // busybox knows whole seconds only.
    await runCommand(dateCommand, ['-s', `@${Math.round(target() / 1000)}`]);
  }
}
