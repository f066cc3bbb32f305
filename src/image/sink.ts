/**
 * The receiving end of a pull: a registry on loopback, for one skopeo, for as long as it runs.
 *
 * Why not one of skopeo's directories: `oci:` rewrites Docker manifests, so that image ids and digests would not be the
 * registry's, and `dir:` fetches layers again that the store has. Here skopeo asks before it sends, manifests arrive byte for byte,
 * and every blob is hashed while it is written. A killed daemon takes the sink along, so skopeo ends too.
 */
import { randomBytes, timingSafeEqual } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { type Digest, parseDigest } from '../base/ids.ts';
import type { Credentials } from './credentials.ts';
import { digestOf, MAX_MANIFEST_BYTES } from './manifest.ts';
import type { Staging, Upload } from './staging.ts';

export interface Sink extends AsyncDisposable {
  /** "127.0.0.1:<port>". */
  readonly registry: string;
  /** Name to copy to. */
  readonly destination: string;
  readonly credentials: Credentials;
  /** Digest of the manifest that arrived last; undefined until then. */
  readonly manifest: Digest | undefined;
  /** Bytes of blobs received so far. */
  readonly received: number;
  /** What went wrong on this side (no space, wrong digest); skopeo's own words about it say little. */
  readonly failure: unknown;
}

interface State {
  readonly staging: Staging;
  readonly authorization: Buffer;
  readonly uploads: Map<string, Upload>;
  manifest: Digest | undefined;
  received: number;
  failure: unknown;
}

const BLOB = /^\/v2\/image\/blobs\/(sha256:[0-9a-f]{64})$/;
const UPLOAD = /^\/v2\/image\/blobs\/uploads\/([0-9]*)$/;
const MANIFEST = /^\/v2\/image\/manifests\/[^/]+$/;

/** Opens a sink that fills `staging`. */
export async function openSink(staging: Staging): Promise<Sink> {
  const credentials = { username: 'infralet', password: randomBytes(24).toString('base64url'), identityToken: '' };
  const basic = Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64');
  const state: State = {
    staging,
    authorization: Buffer.from(`Basic ${basic}`),
    uploads: new Map(),
    manifest: undefined,
    received: 0,
    failure: undefined,
  };
  const server = createServer({ requestTimeout: 0 }, (request, response) => {
    void answer(state, request, response).catch((error: unknown) => {
      // A sender that went away has its own story to tell on stderr; only our side's troubles are ours to report.
      if (request.complete) state.failure ??= error;
      else if (!hasErrno(error, 'ECONNRESET')) state.failure ??= error;
      if (response.headersSent) response.destroy();
      else response.writeHead(500, { connection: 'close' }).end();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string')
    throw new InfraletError('INTERNAL', 'the image sink has no port');
  const registry = `127.0.0.1:${address.port}`;
  return {
    registry,
    destination: `docker://${registry}/image:latest`,
    credentials,
    get manifest() {
      return state.manifest;
    },
    get received() {
      return state.received;
    },
    get failure() {
      return state.failure;
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      await promise;
      for (const upload of state.uploads.values()) await upload[Symbol.asyncDispose]();
    },
  };
}

async function answer(state: State, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const given = Buffer.from(request.headers.authorization ?? '');
  if (given.length !== state.authorization.length || !timingSafeEqual(given, state.authorization)) {
    response.writeHead(401, { 'www-authenticate': 'Basic realm="infralet"' }).end();
    return;
  }
  const url = new URL(request.url ?? '/', 'http://sink');
  const blob = BLOB.exec(url.pathname)?.[1];
  const upload = UPLOAD.exec(url.pathname)?.[1];
  if (url.pathname === '/v2/') response.writeHead(200).end('{}');
  else if (request.method === 'HEAD' && blob !== undefined) head(state, parseDigest(blob), response);
  else if (upload !== undefined) await receive(state, upload, url, request, response);
  else if (request.method === 'PUT' && MANIFEST.test(url.pathname)) await receiveManifest(state, request, response);
  else response.writeHead(404).end();
}

function head(state: State, digest: Digest, response: ServerResponse): void {
  const size = state.staging.reuse(digest);
  if (size === undefined) response.writeHead(404).end();
  else response.writeHead(200, { 'content-length': size, 'docker-content-digest': digest }).end();
}

/** POST opens an upload, PATCH brings its bytes, PUT ends it under its digest. */
async function receive(
  state: State,
  id: string,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  if (request.method === 'POST') {
    const opened = await state.staging.upload();
    const name = String(state.uploads.size + 1);
    state.uploads.set(name, opened);
    response.writeHead(202, { location: `/v2/image/blobs/uploads/${name}`, range: '0-0' }).end();
    return;
  }
  const upload = state.uploads.get(id);
  if (!upload || (request.method !== 'PATCH' && request.method !== 'PUT')) {
    response.writeHead(404).end();
    return;
  }
  for await (const chunk of request) {
    await upload.write(chunk);
    state.received += chunk.length;
  }
  if (request.method === 'PATCH') {
    response.writeHead(202, { location: url.pathname, range: `0-${Math.max(upload.size - 1, 0)}` }).end();
    return;
  }
  const digest = parseDigest(url.searchParams.get('digest') ?? '');
  await state.staging.keep(upload, digest);
  response.writeHead(201, { location: `/v2/image/blobs/${digest}`, 'docker-content-digest': digest }).end();
}

async function receiveManifest(state: State, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > MAX_MANIFEST_BYTES) throw new InfraletError('DATA_LOSS', 'the manifest is larger than 4 MiB');
    chunks.push(chunk);
  }
  const data = Buffer.concat(chunks);
  const digest = digestOf(data);
  await state.staging.put(digest, data);
  state.manifest = digest;
  response.writeHead(201, { location: `/v2/image/manifests/${digest}`, 'docker-content-digest': digest }).end();
}
