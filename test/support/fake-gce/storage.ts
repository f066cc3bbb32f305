/** Cloud Storage's resumable uploads, as strict as they are about ranges. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { buffer } from 'node:stream/consumers';

const QUANTUM = 256 * 1024;

interface Session {
  readonly object: string;
  readonly parts: Buffer[];
  length: number;
}

export class FakeStorage {
  /** Contents by "bucket/object". */
  readonly objects = new Map<string, Buffer>();
  /** Everything that was ever stored, for tests to look at after it was removed. */
  readonly stored = new Map<string, Buffer>();
  readonly sessions = new Map<string, Session>();
  /** The next requests of a method: answered with a status, or a part is kept and the connection broken. */
  readonly faults: { readonly method: string; readonly status: number | 'cut' }[] = [];

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', `http://${request.headers.host ?? ''}`);
    const method = request.method ?? '';
    const body = await buffer(request);
    const index = this.faults.findIndex((fault) => fault.method === method);
    const [fault] = index < 0 ? [] : this.faults.splice(index, 1);
    if (fault && fault.status !== 'cut') return void response.writeHead(fault.status).end('scripted');
    const [, bucket, object] = /\/b\/([^/]+)\/o\/?(.*)$/.exec(url.pathname) ?? [];
    const id = url.searchParams.get('upload_id') ?? '';
    const session = this.sessions.get(id);
    if (method === 'POST') {
      const fresh = randomUUID();
      this.sessions.set(fresh, { object: `${bucket}/${url.searchParams.get('name')}`, parts: [], length: 0 });
      url.searchParams.set('upload_id', fresh);
      return void response.writeHead(200, { location: url.href }).end();
    }
    if (method === 'DELETE' && session) {
      this.sessions.delete(id);
      return void response.writeHead(499).end();
    }
    if (method === 'DELETE') {
      const known = this.objects.delete(`${bucket}/${decodeURIComponent(object ?? '')}`);
      return void response.writeHead(known ? 204 : 404).end();
    }
    if (method !== 'PUT' || !session) return void response.writeHead(404).end();
    if (fault) {
      // Half of it arrives.
      this.#take(session, body.subarray(0, Math.floor(body.length / 2 / QUANTUM) * QUANTUM));
      response.destroy();
      return;
    }
    if (this.#put(session, request.headers['content-range'] ?? '', body, response)) this.sessions.delete(id);
  }

  #put(session: Session, range: string, body: Buffer, response: ServerResponse): boolean {
    const refuse = (why: string): false => {
      response.writeHead(400).end(why);
      return false;
    };
    const [, first, last, total = ''] = /^bytes (?:(\d+)-(\d+)|\*)\/(\d+|\*)$/.exec(range) ?? [];
    if (total === '') return refuse('no range');
    if (first !== undefined) {
      const whole = Number(last) - Number(first) + 1 === body.length;
      if (!whole || Number(first) !== session.length) return refuse('wrong range');
      if (total === '*' && body.length % QUANTUM !== 0) return refuse('wrong size');
      this.#take(session, body);
    }
    if (total !== '*' && Number(total) === session.length) {
      const content = Buffer.concat(session.parts);
      this.objects.set(session.object, content);
      this.stored.set(session.object, content);
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
      return true;
    }
    response.writeHead(308, session.length === 0 ? {} : { range: `bytes=0-${session.length - 1}` }).end();
    return false;
  }

  #take(session: Session, data: Buffer): void {
    session.parts.push(data);
    session.length += data.length;
  }
}
