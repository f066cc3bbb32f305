/** Streams that keep what a command writes. */
import { Writable } from 'node:stream';
import type { Io } from '../../src/cli/io.ts';

export interface CapturedIo extends Io {
  readonly stdout: () => string;
  readonly stderr: () => string;
}

export function captureIo(signal: AbortSignal = new AbortController().signal): CapturedIo {
  const out = collect();
  const err = collect();
  return { out: out.stream, err: err.stream, stdout: out.text, stderr: err.text, signal };
}

function collect(): { readonly stream: Writable; readonly text: () => string } {
  let text = '';
  const stream = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      text += chunk.toString();
      done();
    },
  });
  return { stream, text: () => text };
}
