/** The guest's answer to a continued request: waiting for its first bytes, and reading its head where it is ours to read. */
import type { Duplex } from 'node:stream';
import { InfraletError } from '../base/errors.ts';

/** containerd's answer has some 200 bytes. */
const MAX_HEAD_BYTES = 16 * 1024;
const MAX_QUOTE = 500;

/** Resolves when there is something to read. Throws UNAVAILABLE when the guest ends before, or the signal's reason. */
export async function firstBytes(guest: Duplex, gone: AbortSignal): Promise<void> {
  if (guest.readableLength > 0) return;
  gone.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const lost = (error?: Error): void => reject(unanswered(error));
  const onGone = (): void => reject(gone.reason);
  guest.once('readable', resolve);
  guest.once('error', lost);
  guest.once('close', lost);
  gone.addEventListener('abort', onGone, { once: true });
  try {
    await promise;
    if (guest.readableLength === 0) throw unanswered();
  } finally {
    guest.off('readable', resolve);
    guest.off('error', lost);
    guest.off('close', lost);
    gone.removeEventListener('abort', onGone);
  }
}

/** Reads the head of an answer that must be "101 Switching Protocols"; what follows it stays to be read. */
export async function switchedProtocols(guest: Duplex, gone: AbortSignal): Promise<void> {
  let held = Buffer.alloc(0);
  let end = -1;
  while (end < 0) {
    if (held.length > MAX_HEAD_BYTES) throw new InfraletError('DATA_LOSS', 'the machine answered without an end');
    await firstBytes(guest, gone);
    held = Buffer.concat([held, guest.read() as Buffer]);
    end = held.indexOf('\r\n\r\n');
  }
  const [status = ''] = held.subarray(0, end).toString('latin1').split('\r\n');
  if (!status.startsWith('HTTP/1.1 101 ')) {
    const body = held.subarray(end + 4).toString('latin1');
    const quote = `${status} ${body}`
      .slice(0, MAX_QUOTE)
      .replaceAll(/[^\x20-\x7e]+/g, ' ')
      .trim();
    throw new InfraletError('UNAVAILABLE', `the machine refused the stream: ${quote}`);
  }
  if (held.length > end + 4) guest.unshift(held.subarray(end + 4));
}

function unanswered(cause?: Error): InfraletError {
  return new InfraletError('UNAVAILABLE', 'the machine closed the stream without an answer', { cause });
}
