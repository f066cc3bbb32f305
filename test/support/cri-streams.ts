/** Clients of streaming URLs over WebSocket, in the framing of Kubernetes: first byte the channel, the rest its data. */
import { Duplex } from 'node:stream';

export interface ExecResult {
  readonly stdout: Buffer;
  readonly stderr: Buffer;
  /** The command's exit code; undefined when the session ended without a status. */
  readonly exitCode: number | undefined;
  /** The status as the server sent it. */
  readonly status: unknown;
}

export interface StreamOptions {
  /** Written to stdin, whose end is then signalled where the protocol can (v5). */
  readonly stdin?: string | Uint8Array;
  /** Stops the session; what was received until then is the result. */
  readonly signal?: AbortSignal;
  /** Milliseconds. @default 30_000 */
  readonly timeoutMs?: number;
  /** Leaves stdin open after that: containerd takes the end of stdin for the end of an attachment. @default false */
  readonly keepStdin?: boolean;
  /** Size of the client's terminal, told once the session is open. */
  readonly terminal?: { readonly Width: number; readonly Height: number };
  /** @default ['v5.channel.k8s.io', 'v4.channel.k8s.io'] */
  readonly protocols?: readonly string[];
  /** Called with each piece of output, for tests that talk with the command. */
  readonly onOutput?: (text: string, send: (input: string | Uint8Array) => void) => void;
}

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;
const STATUS = 3;
const RESIZE = 4;
const CLOSE = 255;
/** Largest piece of stdin in one message. */
const CHUNK = 32 * 1024;

/** Runs the session of an Exec or Attach URL to its end. */
export async function runStream(url: string, options: StreamOptions = {}): Promise<ExecResult> {
  const socket = await open(url, options.protocols ?? ['v5.channel.k8s.io', 'v4.channel.k8s.io'], options);
  const output: Record<number, Buffer[]> = { [STDOUT]: [], [STDERR]: [], [STATUS]: [] };
  const ended = Promise.withResolvers<void>();
  const send = (input: string | Uint8Array): void => {
    const bytes = Buffer.from(input);
    for (let at = 0; at < bytes.length; at += CHUNK) {
      socket.send(Buffer.concat([Buffer.of(STDIN), bytes.subarray(at, at + CHUNK)]));
    }
  };
  socket.addEventListener('message', (event: { readonly data: unknown }) => {
    const bytes = Buffer.from(event.data as ArrayBuffer);
    const channel = bytes[0] ?? CLOSE;
    output[channel]?.push(bytes.subarray(1));
    if (bytes.length > 1 && (channel === STDOUT || channel === STDERR)) {
      options.onOutput?.(bytes.subarray(1).toString(), send);
    }
  });
  socket.addEventListener('close', () => ended.resolve());
  socket.addEventListener('error', () => ended.resolve());
  options.signal?.addEventListener('abort', () => socket.close(), { once: true });
  if (options.terminal) socket.send(Buffer.concat([Buffer.of(RESIZE), Buffer.from(JSON.stringify(options.terminal))]));
  if (options.stdin !== undefined) {
    send(options.stdin);
    if (socket.protocol.startsWith('v5') && !options.keepStdin) socket.send(Buffer.of(CLOSE, STDIN));
  }
  const timer = setTimeout(
    () => ended.reject(new Error(`the session did not end: ${url}`)),
    options.timeoutMs ?? 30_000,
  );
  try {
    await ended.promise;
  } finally {
    clearTimeout(timer);
    socket.close();
  }
  const joined = (channel: number): Buffer => Buffer.concat(output[channel] ?? []);
  const text = joined(STATUS).toString();
  const status: unknown = text === '' ? undefined : JSON.parse(text);
  return { stdout: joined(STDOUT), stderr: joined(STDERR), status, exitCode: exitCode(status) };
}

/** A byte stream to one port of a pod, from a PortForward URL that names exactly that port. */
export async function forwardedPort(url: string, options: StreamOptions = {}): Promise<Duplex> {
  const socket = await open(url, options.protocols ?? ['v4.channel.k8s.io'], options);
  const headers = new Set<number>();
  const duplex = new Duplex({
    read() {},
    write(chunk: Buffer, _encoding, done) {
      for (let at = 0; at < chunk.length; at += CHUNK) {
        socket.send(Buffer.concat([Buffer.of(0), chunk.subarray(at, at + CHUNK)]));
      }
      done();
    },
    destroy(error, done) {
      socket.close();
      done(error);
    },
  });
  socket.addEventListener('message', (event: { readonly data: unknown }) => {
    const bytes = Buffer.from(event.data as ArrayBuffer);
    const channel = bytes[0] ?? 0;
    // The first message of each channel is the port's number.
    if (!headers.has(channel)) headers.add(channel);
    else if (channel === 0) duplex.push(bytes.subarray(1));
    else if (bytes.length > 1) duplex.destroy(new Error(bytes.subarray(1).toString()));
  });
  socket.addEventListener('close', () => duplex.push(null));
  return duplex;
}

/** Opens the connection; a refusal becomes an error with the URL's answer. */
async function open(url: string, protocols: readonly string[], options: StreamOptions): Promise<WebSocket> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), [...protocols]);
  socket.binaryType = 'arraybuffer';
  const opened = Promise.withResolvers<void>();
  socket.addEventListener('open', () => opened.resolve());
  socket.addEventListener('error', () => opened.reject(new Error(`the WebSocket was refused: ${url}`)));
  const timer = setTimeout(() => opened.reject(new Error(`no WebSocket from ${url}`)), options.timeoutMs ?? 30_000);
  try {
    await opened.promise;
  } finally {
    clearTimeout(timer);
  }
  return socket;
}

function exitCode(status: unknown): number | undefined {
  if (typeof status !== 'object' || status === null) return undefined;
  const { status: word, details } = status as {
    readonly status?: string;
    readonly details?: { readonly causes?: readonly { readonly reason?: string; readonly message?: string }[] };
  };
  if (word === 'Success') return 0;
  const cause = details?.causes?.find(({ reason }) => reason === 'ExitCode');
  return cause?.message === undefined ? undefined : Number(cause.message);
}
