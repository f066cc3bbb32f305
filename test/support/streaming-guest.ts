/**
 * A stand-in for containerd's streaming server: real sockets, as strict about WebSocket origins. SPDY bytes are echoed;
 * WebSocket messages on stdin come back on stdout, and "exit N" ends the session with that status.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { StreamTarget } from '../../src/streaming/tokens.ts';

export interface StreamingGuest extends AsyncDisposable {
  /** Heads that arrived. */
  readonly requests: IncomingMessage[];
  /** Connections that are open. */
  readonly connections: ReadonlySet<Socket>;
  /** Replaces the echo for SPDY sessions. */
  onSpdy: (socket: Duplex, head: Buffer) => void;
  /** Answers requests with an error and this text. */
  refuse: string | undefined;
  /** Connects like the tunnel of a sandbox would. */
  target(path?: string): StreamTarget;
}

export async function startStreamingGuest(): Promise<StreamingGuest> {
  const requests: IncomingMessage[] = [];
  const connections = new Set<Socket>();
  const server = createServer((_request, response) => {
    response.statusCode = 404;
    response.end('nothing here\n');
  });
  server.on('connection', (socket) => {
    connections.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => connections.delete(socket));
  });
  const guest: StreamingGuest = {
    requests,
    connections,
    onSpdy: (socket, head) => {
      socket.write(head);
      socket.pipe(socket);
    },
    refuse: undefined,
    target: (path = '/exec/guest-token') => {
      const { port } = server.address() as AddressInfo;
      return { socket: connect(port, '127.0.0.1'), path, host: `127.0.0.1:${port}` };
    },
    [Symbol.asyncDispose]: async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      for (const socket of connections) socket.destroy();
      await promise;
    },
  };
  server.on('upgrade', (request, socket, head) => {
    requests.push(request);
    if (guest.refuse !== undefined) {
      socket.end(`HTTP/1.1 409 Conflict\r\nConnection: close\r\n\r\n${guest.refuse}`);
    } else if (request.headers.upgrade?.toLowerCase() === 'spdy/3.1') {
      socket.write(
        'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-From: guest\r\n\r\n',
      );
      guest.onSpdy(socket, head);
    } else if (request.headers.origin) {
      serveWebSocket(request, socket, head);
    } else {
      socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    }
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  return guest;
}

function serveWebSocket(request: IncomingMessage, socket: Duplex, head: Buffer): void {
  const key = `${request.headers['sec-websocket-key']}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  const accept = createHash('sha1').update(key).digest('base64');
  const protocol = String(request.headers['sec-websocket-protocol']).split(',')[0];
  socket.write(
    'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
      `Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: ${protocol}\r\n\r\n`,
  );
  let held = head;
  const onData = (chunk: Buffer): void => {
    held = Buffer.concat([held, chunk]);
    for (;;) {
      const frame = readFrame(held);
      if (!frame) return;
      held = held.subarray(frame.end);
      answer(socket, frame.opcode, frame.payload);
    }
  };
  socket.on('data', onData);
  onData(Buffer.alloc(0));
}

function answer(socket: Duplex, opcode: number, payload: Buffer): void {
  if (opcode === 8) {
    socket.end(writeFrame(8, payload));
    return;
  }
  if (payload[0] !== 0) return;
  const input = payload.subarray(1);
  const exit = /^exit (\d+)$/.exec(input.toString());
  if (!exit) {
    socket.write(writeFrame(2, Buffer.concat([Buffer.of(1), input])));
    return;
  }
  const status =
    exit[1] === '0'
      ? { status: 'Success' }
      : { status: 'Failure', details: { causes: [{ reason: 'ExitCode', message: exit[1] }] } };
  socket.write(writeFrame(2, Buffer.concat([Buffer.of(2), Buffer.from('bye')])));
  socket.write(writeFrame(2, Buffer.concat([Buffer.of(3), Buffer.from(JSON.stringify(status))])));
  socket.write(writeFrame(8, Buffer.of(3, 232)));
}

function readFrame(
  data: Buffer,
): { readonly opcode: number; readonly payload: Buffer; readonly end: number } | undefined {
  if (data.length < 2) return undefined;
  const short = data.readUInt8(1) & 0x7f;
  const start = short < 126 ? 2 : short === 126 ? 4 : 10;
  if (data.length < start + 4) return undefined;
  const length = short < 126 ? short : short === 126 ? data.readUInt16BE(2) : Number(data.readBigUInt64BE(2));
  const end = start + 4 + length;
  if (data.length < end) return undefined;
  const mask = data.subarray(start, start + 4);
  const payload = Buffer.from(data.subarray(start + 4, end));
  for (let at = 0; at < payload.length; at++) payload[at] = (payload[at] ?? 0) ^ (mask[at % 4] ?? 0);
  return { opcode: data.readUInt8(0) & 0x0f, payload, end };
}

function writeFrame(opcode: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(payload.length < 126 ? 2 : 4);
  header.writeUInt8(0x80 | opcode, 0);
  if (payload.length < 126) header.writeUInt8(payload.length, 1);
  else {
    header.writeUInt8(126, 1);
    header.writeUInt16BE(payload.length, 2);
  }
  return Buffer.concat([header, payload]);
}
