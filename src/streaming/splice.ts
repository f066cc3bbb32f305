/** Joins two byte streams: what one reads the other writes, with back-pressure and half-close, until both are done. */
import type { Duplex } from 'node:stream';

/** Resolves when both are closed, whichever of them ended or failed first. Never rejects. */
export async function splice(left: Duplex, right: Duplex): Promise<void> {
  left.pipe(right);
  right.pipe(left);
  await Promise.all([closes(left, right), closes(right, left)]);
}

/**
 * Waits for the end of `stream`. One end passes on by itself (pipe ends the other's writing side); a stream that is
 * gone altogether takes the other with it once that has written what it got.
 */
async function closes(stream: Duplex, other: Duplex): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const onClose = (): void => {
    if (stream.readableEnded) endThenDestroy(other);
    else other.destroy();
    resolve();
  };
  // An error is followed by close; without a listener it would end the process.
  stream.on('error', () => stream.destroy());
  if (stream.closed) onClose();
  else stream.once('close', onClose);
  await promise;
}

function endThenDestroy(stream: Duplex): void {
  if (stream.destroyed) return;
  if (stream.writableFinished) stream.destroy();
  else stream.end(() => stream.destroy());
}
