/** A stream of unknown length into a storage bucket: Cloud Storage's resumable uploads over plain HTTPS. */
import { backoffMs } from '../../src/base/backoff.ts';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import { systemClock } from '../../src/base/time.ts';

/** A multiple of 256 KiB, as the service wants it; one such piece is kept in memory. */
const PIECE = 8 * 2 ** 20;
const PAUSE = { initialMs: 500, maxMs: 30_000, factor: 2, jitter: 0.2 } as const;

export interface Bucket {
  /** "https://storage.googleapis.com". */
  readonly base: string;
  readonly name: string;
  /** Headers that authorize a request to this URL. */
  readonly authorize: (url: string) => Promise<Headers>;
  /** Tries of one piece. */
  readonly attempts: number;
  /** Milliseconds for one request. */
  readonly timeoutMs: number;
}

/** @returns bytes stored. On failure the unfinished upload is given up, so that nothing is kept of it. */
export async function upload(
  bucket: Bucket,
  object: string,
  source: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<number> {
  const session = await begin(bucket, object, signal);
  try {
    let at = 0;
    let held: Buffer[] = [];
    let length = 0;
    for await (const chunk of source) {
      held.push(chunk);
      length += chunk.length;
      while (length > PIECE) {
        const all = Buffer.concat(held);
        await putPiece(bucket, session, { data: all.subarray(0, PIECE), at, total: '*' }, signal);
        at += PIECE;
        held = [all.subarray(PIECE)];
        length -= PIECE;
      }
    }
    await putPiece(bucket, session, { data: Buffer.concat(held), at, total: String(at + length) }, signal);
    return at + length;
  } catch (error) {
    await send(bucket, session, { method: 'DELETE' }, AbortSignal.timeout(30_000)).catch(() => undefined);
    throw error;
  }
}

/** Succeeds on what is gone. */
export async function removeObject(bucket: Bucket, object: string, signal: AbortSignal): Promise<void> {
  const url = `${bucket.base}/storage/v1/b/${bucket.name}/o/${encodeURIComponent(object)}`;
  const response = await send(bucket, url, { method: 'DELETE' }, signal);
  if (!response.ok && response.status !== 404) throw await refused(response, `cannot delete ${object}`);
}

async function begin(bucket: Bucket, object: string, signal: AbortSignal): Promise<string> {
  const query = `uploadType=resumable&name=${encodeURIComponent(object)}`;
  const url = `${bucket.base}/upload/storage/v1/b/${bucket.name}/o?${query}`;
  const response = await send(bucket, url, { method: 'POST' }, signal);
  const session = response.headers.get('location');
  if (!response.ok || session === null) throw await refused(response, `cannot upload to the bucket ${bucket.name}`);
  return session;
}

interface Piece {
  readonly data: Buffer;
  /** Its place in the object. */
  readonly at: number;
  /** Of the object; `*` while that is not known. */
  readonly total: string;
}

/** Puts one piece; after a failure the service is asked how much of it has arrived. */
async function putPiece(
  bucket: Bucket,
  session: string,
  { data, at, total }: Piece,
  signal: AbortSignal,
): Promise<void> {
  const end = at + data.length;
  let from = at;
  for (let attempt = 1; ; attempt += 1) {
    let why: string;
    try {
      const body = data.subarray(from - at);
      const range = body.length === 0 ? `bytes */${total}` : `bytes ${from}-${end - 1}/${total}`;
      const response = await send(bucket, session, { method: 'PUT', body, range }, signal);
      if (response.ok) return;
      if (response.status === 308) {
        from = stored(response);
        if (from >= end && total === '*') return;
        // Less than was sent: the rest once more.
        why = `${from} of ${end} bytes have arrived`;
      } else if (response.status < 500 && response.status !== 408 && response.status !== 429) {
        throw await refused(response, `the upload to ${bucket.name} is refused`);
      } else why = `status ${response.status}`;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof InfraletError) throw error;
      why = errorMessage(error);
    }
    if (attempt >= bucket.attempts) {
      throw new InfraletError('UNAVAILABLE', `the upload to ${bucket.name} fails again and again: ${why}`);
    }
    await systemClock.sleep(backoffMs(PAUSE, attempt), signal);
    const state = await send(bucket, session, { method: 'PUT', range: 'bytes */*' }, signal).catch(() => undefined);
    if (state?.ok === true) return;
    if (state?.status === 308) from = Math.min(Math.max(stored(state), at), end);
  }
}

/** Bytes that the service has, by its answer 308: "Range: bytes=0-N", none at all before the first. */
function stored(response: Response): number {
  const last = /^bytes=0-(\d+)$/.exec(response.headers.get('range') ?? '')?.[1];
  return last === undefined ? 0 : Number(last) + 1;
}

async function send(
  bucket: Bucket,
  url: string,
  request: { readonly method: string; readonly body?: Buffer; readonly range?: string },
  signal: AbortSignal,
): Promise<Response> {
  const headers = new Headers(await bucket.authorize(url));
  if (request.range !== undefined) headers.set('content-range', request.range);
  if (request.method === 'PUT') headers.set('content-length', String(request.body?.length ?? 0));
  return await fetch(url, {
    method: request.method,
    headers,
    // 308 is an answer here, no redirection.
    redirect: 'manual',
    signal: AbortSignal.any([signal, AbortSignal.timeout(bucket.timeoutMs)]),
    ...(request.body === undefined ? {} : { body: new Uint8Array(request.body) }),
  });
}

async function refused(response: Response, what: string): Promise<InfraletError> {
  const text = (await response.text().catch(() => '')).slice(0, 500);
  const code = response.status === 401 || response.status === 403 ? 'PERMISSION_DENIED' : 'UNAVAILABLE';
  return new InfraletError(code, `${what}: status ${response.status} ${text}`.trim(), {
    hint: 'the account needs storage.objects.create and storage.objects.delete in the bucket',
  });
}
