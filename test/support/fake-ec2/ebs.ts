/** EBS direct APIs (REST) and what EC2 makes of a snapshot: blocks are checked as EBS checks them, and kept. */
import { createHash } from 'node:crypto';
import { open } from 'node:fs/promises';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

const BLOCK = 512 * 1024;

export interface FakeSnapshot {
  readonly id: string;
  readonly sizeGib: number;
  readonly tags: Readonly<Record<string, string>>;
  readonly blocks: Map<number, Buffer>;
  state: 'pending' | 'completed' | 'error';
  /** Looks at it that still find it pending although it is complete. */
  looks: number;
}

export interface FakeImage {
  readonly id: string;
  readonly name: string;
  readonly request: Readonly<Record<string, string>>;
}

export interface EbsFault {
  readonly match: RegExp;
  readonly status: number;
  readonly code: string;
  times: number;
}

class Refused extends Error {
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string) {
    super(code);
    this.status = status;
    this.code = code;
  }
}

export class FakeEbs {
  readonly snapshots = new Map<string, FakeSnapshot>();
  readonly images = new Map<string, FakeImage>();
  readonly faults: EbsFault[] = [];
  /** "METHOD path status" of every call. */
  readonly calls: string[] = [];
  #count = 0;

  /** Whether a volume made from it has the very bytes of that file. */
  async equals({ sizeGib, blocks }: FakeSnapshot, file: string): Promise<boolean> {
    await using handle = await open(file, 'r');
    const buffer = Buffer.alloc(BLOCK);
    const zeros = Buffer.alloc(BLOCK);
    for (let index = 0; index < (sizeGib * 2 ** 30) / BLOCK; index += 1) {
      const { bytesRead } = await handle.read(buffer, 0, BLOCK, index * BLOCK);
      if (bytesRead !== BLOCK || !buffer.equals(blocks.get(index) ?? zeros)) return false;
    }
    return (await handle.stat()).size === sizeGib * 2 ** 30;
  }

  /** Writes the disk of a machine that is launched from the image. */
  async restore(imageId: string, file: string): Promise<void> {
    const image = this.images.get(imageId);
    const snapshot = this.snapshots.get(image?.request['BlockDeviceMapping.1.Ebs.SnapshotId'] ?? '');
    if (!snapshot) throw new Error(`there is no image ${imageId}`);
    await using handle = await open(file, 'wx');
    await handle.truncate(snapshot.sizeGib * 2 ** 30);
    for (const [index, data] of snapshot.blocks) await handle.write(data, 0, BLOCK, index * BLOCK);
  }

  register(request: Readonly<Record<string, string>>): FakeImage {
    const id = `ami-${(this.images.size + 1).toString(16).padStart(17, '0')}`;
    const image = { id, name: request['Name'] ?? '', request };
    this.images.set(id, image);
    return image;
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', headers } = request;
    const body = await buffer(request);
    try {
      const fault = this.faults.find((entry) => entry.times > 0 && entry.match.test(`${method} ${url}`));
      if (fault) {
        fault.times -= 1;
        throw new Refused(fault.status, fault.code);
      }
      const result = this.#route(method, url.replace(/\?.*$/, ''), headers, body);
      this.calls.push(`${method} ${url} ok`);
      response.setHeader('content-type', 'application/json');
      response.writeHead(method === 'PUT' || method === 'POST' ? (url === '/snapshots' ? 201 : 202) : 200);
      response.end(JSON.stringify(result));
    } catch (error) {
      const { status, code } = error instanceof Refused ? error : new Refused(500, 'InternalServerException');
      this.calls.push(`${method} ${url} ${code}`);
      response.setHeader('x-amzn-errortype', code);
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ Message: code }));
    }
  }

  #route(method: string, path: string, headers: IncomingMessage['headers'], body: Buffer): object {
    const [, , first = '', second, index] = path.split('/');
    if (method === 'POST' && path === '/snapshots') return this.#start(body);
    if (method === 'POST' && first === 'completion') return this.#complete(this.#pending(second ?? ''), headers);
    if (method === 'PUT' && second === 'blocks') return this.#put(this.#pending(first), Number(index), headers, body);
    throw new Refused(404, 'ResourceNotFoundException');
  }

  #start(body: Buffer): object {
    const request = JSON.parse(body.toString()) as {
      readonly VolumeSize: number;
      readonly Tags?: readonly { readonly Key: string; readonly Value: string }[];
    };
    if (!Number.isInteger(request.VolumeSize)) throw new Refused(400, 'ValidationException');
    this.#count += 1;
    const id = `snap-${this.#count.toString(16).padStart(17, '0')}`;
    const tags = Object.fromEntries((request.Tags ?? []).map(({ Key, Value }) => [Key, Value]));
    this.snapshots.set(id, {
      ...{ id, sizeGib: request.VolumeSize, tags, blocks: new Map<number, Buffer>(), state: 'pending' as const },
      looks: 1,
    });
    return { SnapshotId: id, BlockSize: BLOCK, VolumeSize: request.VolumeSize, Status: 'pending' };
  }

  #pending(id: string): FakeSnapshot {
    const snapshot = this.snapshots.get(id);
    if (!snapshot) throw new Refused(404, 'ResourceNotFoundException');
    if (snapshot.state !== 'pending') throw new Refused(409, 'ConflictException');
    return snapshot;
  }

  #put(snapshot: FakeSnapshot, index: number, headers: IncomingMessage['headers'], body: Buffer): object {
    const digest = createHash('sha256').update(body).digest('base64');
    const fits = body.length === BLOCK && index >= 0 && (index + 1) * BLOCK <= snapshot.sizeGib * 2 ** 30;
    if (!fits || headers['x-amz-data-length'] !== String(BLOCK)) throw new Refused(400, 'ValidationException');
    if (headers['x-amz-checksum-algorithm'] !== 'SHA256' || headers['x-amz-checksum'] !== digest) {
      throw new Refused(400, 'ValidationException');
    }
    snapshot.blocks.set(index, body);
    return { Checksum: digest, ChecksumAlgorithm: 'SHA256' };
  }

  #complete(snapshot: FakeSnapshot, headers: IncomingMessage['headers']): object {
    const hash = createHash('sha256');
    for (const [, data] of [...snapshot.blocks].sort(([a], [b]) => a - b)) {
      hash.update(createHash('sha256').update(data).digest());
    }
    if (Number(headers['x-amz-changedblockscount']) !== snapshot.blocks.size)
      throw new Refused(400, 'ValidationException');
    if (headers['x-amz-checksum'] !== hash.digest('base64')) throw new Refused(400, 'ValidationException');
    snapshot.state = 'completed';
    return { Status: 'completed' };
  }
}
