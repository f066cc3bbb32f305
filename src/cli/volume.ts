/** `infralet volume …`: block volumes of the cloud in pods' machines. */
import type { AdminClient } from '../admin/client.ts';
import { type Io, line } from './io.ts';

/** A cloud needs seconds for it, an unlucky one half a minute. */
const TIMEOUT_MS = 120_000;

export async function volumeAttach(admin: AdminClient, pod: string, volume: string, io: Io): Promise<void> {
  const serial = await admin.attachVolume(pod, volume, { signal: io.signal, timeoutMs: TIMEOUT_MS });
  line(io.out, `attached; its serial in the machine: ${serial}`);
}

export async function volumeDetach(admin: AdminClient, pod: string, volume: string, io: Io): Promise<void> {
  await admin.detachVolume(pod, volume, { signal: io.signal, timeoutMs: TIMEOUT_MS });
}
