/**
 * The registry that guests see through their tunnel: read only, and nothing but what their sandbox was granted. All that
 * arrives here was written by an untrusted guest.
 */
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorMessage } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import type { Logger } from '../telemetry/log.ts';
import type { BlobStore } from './blob-store.ts';
import type { Grants } from './grants.ts';
import type { Descriptor } from './manifest.ts';
import { parseRange } from './range.ts';

/** Connections of one guest at once; containerd opens three per image. Idle ones cost a few kB and end with the tunnel. */
const MAX_CONNECTIONS = 32;
/** containerd's requests have less than 1 kB of headers. */
const MAX_HEADERS = 8192;
const CHUNK = 256 * 1024;
const PATH = /^\/v2\/([a-z0-9]{1,64})\/(manifests|blobs)\/([\w.:-]{1,128})$/;

export class GuestRegistry implements AsyncDisposable {
  readonly #blobs: BlobStore;
  readonly #grants: Grants;
  readonly #log: Logger;
  readonly #server: Server;
  readonly #owners = new WeakMap<object, SandboxId>();
  readonly #connections = new Map<SandboxId, Set<Duplex>>();
  readonly #refusedOnce = new Set<SandboxId>();
  readonly #crowdedOnce = new Set<SandboxId>();

  constructor(blobs: BlobStore, grants: Grants, log: Logger) {
    this.#blobs = blobs;
    this.#grants = grants;
    this.#log = log;
    this.#server = createServer({ maxHeaderSize: MAX_HEADERS }, (request, response) => {
      void this.#answer(request, response).catch((error: unknown) => {
        this.#log.debug('a guest image transfer broke off', { url: request.url, error: errorMessage(error) });
        response.destroy();
      });
    });
    this.#server.on('clientError', (_error: Error, socket: Duplex) => socket.destroy());
  }

  /** Answers requests that arrive on `socket` until it ends. */
  serve(sandboxId: SandboxId, socket: Duplex): void {
    const open = this.#connections.get(sandboxId) ?? new Set<Duplex>();
    this.#connections.set(sandboxId, open);
    // Broken tunnels are everyday life; without a listener they would end the process.
    socket.on('error', (error) =>
      this.#log.debug('a guest image connection broke', { sandboxId, error: error.message }),
    );
    if (open.size >= MAX_CONNECTIONS) {
      const level = this.#crowdedOnce.has(sandboxId) ? 'debug' : 'warn';
      this.#crowdedOnce.add(sandboxId);
      this.#log[level]('a guest opens too many image connections', { sandboxId, limit: MAX_CONNECTIONS });
      socket.destroy();
      return;
    }
    open.add(socket);
    socket.once('close', () => {
      open.delete(socket);
      if (open.size === 0 && this.#connections.get(sandboxId) === open) this.#connections.delete(sandboxId);
    });
    this.#owners.set(socket, sandboxId);
    this.#server.emit('connection', socket);
  }

  /** Cuts the connections of a sandbox. */
  close(sandboxId: SandboxId): void {
    this.#refusedOnce.delete(sandboxId);
    this.#crowdedOnce.delete(sandboxId);
    for (const socket of this.#connections.get(sandboxId) ?? []) socket.destroy();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const sandboxId = this.#owners.get(request.socket);
    response.setHeader('docker-distribution-api-version', 'registry/2.0');
    if (request.method !== 'GET' && request.method !== 'HEAD') return refuse(response, 405, 'UNSUPPORTED');
    const path = (request.url ?? '').split('?')[0] ?? '';
    if (path === '/v2/') {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': 2 });
      response.end(request.method === 'HEAD' ? undefined : '{}');
      return;
    }
    const found = sandboxId === undefined ? undefined : this.#find(sandboxId, path);
    if (!found) {
      this.#refused(sandboxId, path);
      return refuse(response, 404, path.includes('/manifests/') ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN');
    }
    await this.#send(found, request, response);
  }

  /** The first refusal of a sandbox is told, the rest only to who asks for it: a guest must not fill the node's log. */
  #refused(sandboxId: SandboxId | undefined, path: string): void {
    const known = sandboxId !== undefined && this.#refusedOnce.has(sandboxId);
    if (sandboxId !== undefined) this.#refusedOnce.add(sandboxId);
    const level = known ? 'debug' : 'warn';
    this.#log[level]('a guest asked for an image it was not granted', { sandboxId, path: path.slice(0, 200) });
  }

  #find(sandboxId: SandboxId, path: string): Descriptor | undefined {
    const [, name = '', kind, key] = PATH.exec(path) ?? [];
    for (const image of this.#grants.images(sandboxId, name)) {
      const blob = image.blobs.find(({ digest }) =>
        kind === 'manifests' ? digest === image.manifest && (key === digest || key === 'latest') : digest === key,
      );
      if (blob) return { ...blob, mediaType: kind === 'manifests' ? image.mediaType : 'application/octet-stream' };
    }
    return undefined;
  }

  async #send(found: Descriptor, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const range = parseRange(request.headers.range, found.size);
    response.setHeader('content-type', found.mediaType);
    response.setHeader('docker-content-digest', found.digest);
    response.setHeader('etag', `"${found.digest}"`);
    response.setHeader('accept-ranges', 'bytes');
    if (range === 'unsatisfiable') {
      response.writeHead(416, { 'content-range': `bytes */${found.size}` }).end();
      return;
    }
    const { start, end } = range ?? { start: 0, end: found.size - 1 };
    response.setHeader('content-length', end - start + 1);
    if (range) response.setHeader('content-range', `bytes ${start}-${end}/${found.size}`);
    response.writeHead(range ? 206 : 200);
    if (request.method === 'HEAD' || found.size === 0) {
      response.end();
      return;
    }
    const file = await open(this.#blobs.path(found.digest), 'r');
    await pipeline(createReadStream('', { fd: file, start, end, highWaterMark: CHUNK }), response);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sandboxId of this.#connections.keys()) this.close(sandboxId);
    this.#server.close();
  }
}

function refuse(response: ServerResponse, status: number, code: string): void {
  const body = JSON.stringify({ errors: [{ code, message: 'not granted to this sandbox' }] });
  response
    .writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) })
    .end(body);
}
