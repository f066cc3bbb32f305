/** Trees into a machine and bytes out of it, at the pace of the slower side. */
import { once } from 'node:events';
import type { ClientReadableStream, ClientWritableStream, ServiceError } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import type { FileBytes__Output } from '../gen/infralet/agent/v1/FileBytes.ts';
import type { FileChunk } from '../gen/infralet/agent/v1/FileChunk.ts';
import type { PutFilesResponse__Output } from '../gen/infralet/agent/v1/PutFilesResponse.ts';
import { CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import { fromStatus } from './calls.ts';
import type { AgentChannel, CallOptions, GuestFile, GuestRoot } from './channel.ts';
import { misconduct } from './conduct.ts';

/** Parts of one message: an emulated machine is busy with them for some 50 ms, and hears nothing else meanwhile. */
const BATCH = 64;
const KINDS = { file: 'FILE', directory: 'DIRECTORY', symlink: 'SYMLINK' } as const;

export async function putFiles(
  client: AgentClient,
  target: Parameters<AgentChannel['putFiles']>[0],
  files: AsyncIterable<GuestFile>,
  options: CallOptions,
): Promise<string> {
  const { signal } = options;
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<PutFilesResponse__Output>();
  const call: ClientWritableStream<FileChunk> = client.PutFiles(
    { deadline: Date.now() + options.timeoutMs },
    (error: ServiceError | null, reply?: PutFilesResponse__Output) => {
      if (reply) resolve(reply);
      else reject(fromStatus(error, signal));
    },
  );
  // The answer may come before everything is sent: then the rest is not wanted.
  const answered = new AbortController();
  const stop = (): void => answered.abort();
  promise.then(stop, stop);
  const cancel = (): void => call.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  try {
    const send = async (chunk: FileChunk): Promise<void> => {
      answered.signal.throwIfAborted();
      if (!call.write(chunk)) await once(call, 'drain', { signal: answered.signal });
    };
    await send({ target });
    const batch = new Batch(send);
    for await (const file of files) await sendFile(file, (chunk) => batch.add(chunk));
    await batch.add({ end: {} });
    await batch.flush();
    call.end();
  } catch (error) {
    if (!answered.signal.aborted) {
      // The source failed: the agent drops what it has.
      call.cancel();
      await promise.catch(() => undefined);
      throw error;
    }
  } finally {
    signal.removeEventListener('abort', cancel);
    if (signal.aborted) call.cancel();
  }
  return (await promise).path;
}

/** Small files together in one message. */
class Batch {
  readonly #send: (chunk: FileChunk) => Promise<void>;
  #chunks: FileChunk[] = [];
  #bytes = 0;

  constructor(send: (chunk: FileChunk) => Promise<void>) {
    this.#send = send;
  }

  async add(chunk: FileChunk): Promise<void> {
    const bytes = chunk.data?.length ?? (chunk.entry?.path?.length ?? 0) + (chunk.entry?.link?.length ?? 0);
    if (this.#bytes + bytes > CHUNK_BYTES || this.#chunks.length >= BATCH) await this.flush();
    this.#chunks.push(chunk);
    this.#bytes += bytes;
  }

  async flush(): Promise<void> {
    const chunks = this.#chunks;
    this.#chunks = [];
    this.#bytes = 0;
    if (chunks.length > 0) await this.#send({ batch: { chunks } });
  }
}

async function sendFile(file: GuestFile, write: (chunk: FileChunk) => Promise<void>): Promise<void> {
  const { path, mode, uid, gid } = file;
  const common = { path, mode, uid, gid, mtimeMs: Math.round(file.mtimeMs), kind: KINDS[file.kind] };
  if (file.kind === 'symlink') return await write({ entry: { ...common, link: file.link } });
  if (file.kind === 'directory') return await write({ entry: common });
  await write({ entry: { ...common, size: file.size } });
  let sent = 0;
  for await (const bytes of file.content) {
    sent += bytes.byteLength;
    if (sent > file.size) throw changed(file);
    for (let at = 0; at < bytes.byteLength; at += CHUNK_BYTES) {
      await write({
        data: Buffer.from(bytes.buffer, bytes.byteOffset + at, Math.min(CHUNK_BYTES, bytes.byteLength - at)),
      });
    }
  }
  if (sent < file.size) throw changed(file);
}

export async function* readFile(
  client: AgentClient,
  request: { readonly root: GuestRoot; readonly path: string; readonly limit: number },
  signal: AbortSignal,
): AsyncGenerator<Buffer> {
  let received = 0;
  for await (const { data } of streamed<FileBytes__Output>(client.ReadFile(request), signal)) {
    received += data.length;
    if (received > request.limit) {
      throw misconduct('DATA_LOSS', `the agent sent more than the ${request.limit} bytes that it was asked for`);
    }
    yield data;
  }
}

/** A server stream as an iterable: errors mapped, quiet end when the signal fires, cancelled when the reader leaves. */
export async function* streamed<T>(call: ClientReadableStream<T>, signal: AbortSignal): AsyncGenerator<T> {
  const cancel = (): void => call.cancel();
  signal.addEventListener('abort', cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    for await (const message of call as AsyncIterable<T>) yield message;
  } catch (error) {
    if (!signal.aborted) throw fromStatus(error, signal);
  } finally {
    signal.removeEventListener('abort', cancel);
    call.on('error', () => undefined);
    call.cancel();
  }
}

function changed(file: GuestFile): InfraletError {
  return new InfraletError('ABORTED', `${JSON.stringify(file.path)} changed its size while it was copied`);
}
