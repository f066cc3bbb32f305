/**
 * A byte stream inside of WebSocket messages, as kubectl makes it for port-forward. By hand, since the name of its subprotocol
 * is one that WebSocket libraries refuse.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { Duplex } from 'node:stream';

const TUNNEL = 'SPDY/3.1+portforward.k8s.io';
const BINARY = 2;
const CLOSE = 8;

export interface WebSocketTunnel {
  readonly stream: Duplex;
  /** The code of the server's close frame; undefined until it comes, or when the connection breaks. */
  readonly code: () => number | undefined;
  /** Sends one frame as it is. */
  send(opcode: number, payload: Uint8Array): boolean;
}

export async function openTunnel(url: string): Promise<WebSocketTunnel> {
  const opening = request(url, {
    headers: {
      Connection: 'Upgrade',
      Upgrade: 'websocket',
      'Sec-WebSocket-Version': '13',
      'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
      'Sec-WebSocket-Protocol': TUNNEL,
    },
  });
  opening.end();
  const [response, socket, head] = await once(opening, 'upgrade', { signal: AbortSignal.timeout(30_000) });
  if (response.headers['sec-websocket-protocol'] !== TUNNEL) throw new Error('another subprotocol was chosen');
  let code: number | undefined;
  const send = (opcode: number, payload: Uint8Array): boolean => socket.write(masked(opcode, Buffer.from(payload)));
  const stream = new Duplex({
    read: () => void socket.resume(),
    write: (chunk: Buffer, _encoding, done) => {
      if (send(BINARY, chunk)) done();
      else socket.once('drain', done);
    },
    final: (done) => {
      send(CLOSE, Buffer.of(3, 232));
      done();
    },
    destroy: (error, done) => {
      socket.destroy();
      done(error);
    },
  });
  let held: Buffer = head;
  const take = (): void => {
    for (let frame = nextFrame(held); frame; frame = nextFrame(held)) {
      held = held.subarray(frame.end);
      if (frame.opcode === CLOSE) {
        code = frame.payload.readUInt16BE(0);
        stream.push(null);
      } else if (frame.opcode <= BINARY && frame.payload.length > 0 && !stream.push(frame.payload)) socket.pause();
    }
  };
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk]);
    take();
  });
  socket.on('error', () => undefined);
  socket.on('close', () => stream.destroy());
  take();
  return { stream, code: () => code, send };
}

function nextFrame(data: Buffer) {
  if (data.length < 2) return undefined;
  const short = data.readUInt8(1);
  const start = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (data.length < start) return undefined;
  const length = short < 126 ? short : short === 126 ? data.readUInt16BE(2) : Number(data.readBigUInt64BE(2));
  if (data.length < start + length) return undefined;
  return { opcode: data.readUInt8(0) & 0x0f, payload: data.subarray(start, start + length), end: start + length };
}

function masked(opcode: number, payload: Buffer): Buffer {
  const size = payload.length < 126 ? 0 : payload.length < 65_536 ? 2 : 8;
  const head = Buffer.alloc(2 + size);
  head.writeUInt8(0x80 | opcode, 0);
  head.writeUInt8(0x80 | (size === 0 ? payload.length : size === 2 ? 126 : 127), 1);
  if (size === 2) head.writeUInt16BE(payload.length, 2);
  if (size === 8) head.writeBigUInt64BE(BigInt(payload.length), 2);
  const mask = randomBytes(4);
  return Buffer.concat([head, mask, payload.map((byte, at) => byte ^ (mask[at % 4] ?? 0))]);
}
