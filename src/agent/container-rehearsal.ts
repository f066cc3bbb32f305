/**
 * A template runs one container before it is frozen, and removes it with its image: what a clone's first container needs
 * (programs, containerd's code, the kernel's tables) is in memory then, shared with all other clones, instead of being read
 * from the disk into the memory of each. The image is made on the spot of this machine's own busybox; it holds nothing
 * of anybody.
 */
import { createHash } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Containerd } from './containerd.ts';
import type { AgentOptions } from './options.ts';
import { TEMPLATE_POD } from './pod-sandbox.ts';
import { createContainerRequest, firstText, idRequest, imageRequest, podSandboxConfig } from './wire.ts';

const REPOSITORY = 'images.infralet.internal/rehearsal';
const PROGRAM = '/usr/bin/busybox';
const NAME = 'rehearsal';
const CALL_MS = 60_000;
const TAR_BLOCK = 512;

const MANIFEST_TYPE = 'application/vnd.oci.image.manifest.v1+json';
const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';

/** Has containerd's connections to its registry answered by `onConnection`, until it is disposed of. */
export type AcceptImages = (onConnection: (socket: Socket) => void) => Promise<AsyncDisposable>;

/** Pulls, creates, starts, looks at, uses, stops and removes a container in the template's sandbox. */
export async function rehearseContainer(
  sandboxId: string,
  containerd: Containerd,
  options: Pick<AgentOptions, 'roots'>,
  accept: AcceptImages,
): Promise<void> {
  const image = makeImage(readFileSync(PROGRAM));
  const call = async (service: 'Runtime' | 'Image', rpc: string, request: Buffer): Promise<Buffer> => {
    const deadline = Date.now() + CALL_MS;
    return await containerd.call(
      `/runtime.v1.${service}Service/${rpc}`,
      request,
      deadline,
      AbortSignal.timeout(CALL_MS),
    );
  };
  const registry = await accept((socket) => serve(socket, image.blobs));
  let reference = '';
  let containerId = '';
  try {
    reference = firstText(await call('Image', 'PullImage', imageRequest(`${REPOSITORY}@${image.manifest}`)));
    const request = createContainerRequest({
      sandboxId,
      sandbox: podSandboxConfig(TEMPLATE_POD),
      name: NAME,
      image: reference,
      command: ['/busybox', 'sleep', '1000'],
      logPath: `${NAME}.log`,
    });
    containerId = firstText(await call('Runtime', 'CreateContainer', request));
    await call('Runtime', 'StartContainer', idRequest(containerId));
    await call('Runtime', 'ContainerStatus', idRequest(containerId));
    await call('Runtime', 'ExecSync', idRequest(containerId, '/busybox', 'true'));
    await call('Runtime', 'StopContainer', idRequest(containerId));
  } finally {
    await registry[Symbol.asyncDispose]();
    if (containerId !== '') await call('Runtime', 'RemoveContainer', idRequest(containerId));
    if (reference !== '') await call('Image', 'RemoveImage', imageRequest(reference));
    rmSync(join(options.roots.ROOT_LOGS, `${NAME}.log`), { force: true });
  }
}

interface Blob {
  readonly type: string;
  readonly data: Buffer;
}

/** One layer with one program, uncompressed, as the node serves them. */
function makeImage(program: Buffer): { readonly manifest: string; readonly blobs: ReadonlyMap<string, Blob> } {
  const blobs = new Map<string, Blob>();
  const add = (type: string, data: Buffer) => {
    const digest = `sha256:${createHash('sha256').update(data).digest('hex')}`;
    blobs.set(digest, { type, data });
    return { mediaType: type, digest, size: data.length };
  };
  const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
  const layer = add(LAYER_TYPE, tar('busybox', program));
  const rootfs = { type: 'layers', diff_ids: [layer.digest] };
  const config = add(CONFIG_TYPE, json({ architecture: 'amd64', os: 'linux', config: {}, rootfs }));
  const manifest = { schemaVersion: 2, mediaType: MANIFEST_TYPE, config, layers: [layer] };
  return { manifest: add(MANIFEST_TYPE, json(manifest)).digest, blobs };
}

/** A tar archive of one executable file. */
function tar(name: string, data: Buffer): Buffer {
  const header = Buffer.alloc(TAR_BLOCK);
  const octal = (value: number, digits: number): string => `${value.toString(8).padStart(digits, '0')}\0`;
  header.write(name, 0);
  header.write(octal(0o755, 7), 100);
  header.write(octal(0, 7), 108);
  header.write(octal(0, 7), 116);
  header.write(octal(data.length, 11), 124);
  header.write(octal(0, 11), 136);
  header.write(' '.repeat(8), 148);
  header.write('0', 156);
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((TAR_BLOCK - (data.length % TAR_BLOCK)) % TAR_BLOCK);
  return Buffer.concat([header, data, padding, Buffer.alloc(2 * TAR_BLOCK)]);
}

/** A registry of these blobs. As little HTTP as containerd needs. */
function serve(socket: Socket, blobs: ReadonlyMap<string, Blob>): void {
  let head = '';
  socket.on('error', () => undefined);
  socket.on('data', (data) => {
    head += data.toString('latin1');
    for (let end = head.indexOf('\r\n\r\n'); end >= 0; end = head.indexOf('\r\n\r\n')) {
      answer(socket, head, blobs);
      head = head.slice(end + 4);
    }
  });
  socket.resume();
}

/** For a template: on the port where the node's registry is in a clone. */
export function listenForImages({ host, port }: AgentOptions['images']): AcceptImages {
  return async (onConnection) => await listen(host, port, onConnection);
}

async function listen(host: string, port: number, onConnection: (socket: Socket) => void): Promise<AsyncDisposable> {
  const open = new Set<Socket>();
  const server = createServer((socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    onConnection(socket);
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen(port, host, resolve);
  await promise;
  return {
    [Symbol.asyncDispose]: async () => {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      for (const socket of open) socket.destroy();
      await closed.promise;
    },
  };
}

function answer(socket: Socket, head: string, blobs: ReadonlyMap<string, Blob>): void {
  const [, method, digest = ''] = /^(GET|HEAD) \S*\/(sha256:[0-9a-f]{64})[? ]/.exec(head) ?? [];
  const blob = blobs.get(digest);
  if (!blob) {
    socket.write('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  const fields = [
    `Content-Type: ${blob.type}`,
    `Content-Length: ${blob.data.length}`,
    `Docker-Content-Digest: ${digest}`,
  ];
  socket.write(`HTTP/1.1 200 OK\r\n${fields.join('\r\n')}\r\n\r\n`);
  if (method === 'GET') socket.write(blob.data);
}
