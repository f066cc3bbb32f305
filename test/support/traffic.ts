/** Real TCP between namespaces: a server that sends so many bytes, a client that says what arrived and as whom it was seen. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { z } from 'zod';
import { run } from '../../src/base/process.ts';
import { endChild } from './pod-wire.ts';

const signal = AbortSignal.timeout(600_000);

/** Bytes 0…255 over and over: any lost, doubled or damaged byte changes the digest. */
const PATTERN = 'Buffer.from(Array.from({length: 65536}, (_, i) => (i * 7 + (i >> 8)) & 255))';
const SERVER = `
const block = ${PATTERN};
require('node:net').createServer((socket) => {
  socket.on('error', () => {});
  socket.once('data', (ask) => {
    socket.write(socket.remoteAddress.replace('::ffff:', '') + '\\n');
    let left = Number(ask);
    const more = () => {
      while (left > 0) { const part = block.subarray(0, Math.min(left, block.length)); left -= part.length; if (!socket.write(part)) return; }
      socket.end();
    };
    socket.on('drain', more);
    more();
  });
}).listen(Number(process.argv[1]), () => console.log('ready'));`;
const CLIENT = `
const hash = require('node:crypto').createHash('sha256');
const socket = require('node:net').connect(Number(process.argv[2]), process.argv[1]);
let from; let head = '';
socket.setTimeout(15000, () => { console.error('timed out'); process.exit(2); });
socket.on('error', (error) => { console.error(error.message); process.exit(1); });
socket.on('connect', () => socket.write(process.argv[3]));
socket.on('data', (data) => {
  if (from === undefined) {
    head += data.toString('latin1');
    const end = head.indexOf('\\n');
    if (end < 0) return;
    from = head.slice(0, end);
    hash.update(Buffer.from(head.slice(end + 1), 'latin1'));
  } else hash.update(data);
});
socket.on('end', () => console.log(JSON.stringify({ digest: hash.digest('hex'), from })));`;

function inside(
  netns: string | undefined,
  script: string,
  args: readonly string[],
): readonly [string, readonly string[]] {
  const node = [process.execPath, '-e', script, ...args] as const;
  return netns === undefined ? [node[0], node.slice(1)] : ['ip', ['netns', 'exec', netns, ...node]];
}

export const traffic = {
  /** Serves on all addresses of a namespace, or of the node. */
  async serve(netns: string | undefined, port: number): Promise<AsyncDisposable & { alive(): boolean }> {
    const [file, args] = inside(netns, SERVER, [String(port)]);
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    return {
      alive: () => child.exitCode === null && child.signalCode === null,
      [Symbol.asyncDispose]: async () => await endChild(child),
    };
  },

  /** Fetches `bytes` from a namespace, or from the node's own when `netns` is undefined. */
  async fetch(netns: string | undefined, host: string, port: number, bytes: number) {
    const [file, args] = inside(netns, CLIENT, [host, String(port), String(bytes)]);
    const text = await run(file, args, { signal, timeoutMs: 30_000 });
    return z.object({ digest: z.string(), from: z.string() }).parse(JSON.parse(text));
  },

  digest(bytes: number): string {
    const block = Buffer.from(Array.from({ length: 65_536 }, (_, i) => (i * 7 + (i >> 8)) & 255));
    const hash = createHash('sha256');
    for (let left = bytes; left > 0; left -= block.length) hash.update(block.subarray(0, Math.min(left, block.length)));
    return hash.digest('hex');
  },
};
