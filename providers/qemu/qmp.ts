/**
 * A small client of QEMU's machine protocol (QMP): one JSON object per line, commands answered in any order by id, events
 * in between. The emulator has a guest inside it, so what it says is bounded and parsed like anything from outside.
 */
import { connect, type Socket } from 'node:net';
import { z } from 'zod';
import { InfraletError } from '../../src/base/errors.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { withTimeout } from '../../src/base/time.ts';

/** The largest answer is a console of some hundred KiB in base64. */
const MAX_LINE = 8 * 1024 * 1024;

const messageSchema = z.union([
  z.object({ QMP: z.object({}).loose() }),
  z.object({ event: z.string(), data: z.record(z.string(), z.unknown()).default({}) }),
  z.object({ id: z.number(), return: z.unknown() }),
  z.object({ id: z.number(), error: z.object({ class: z.string(), desc: z.string() }) }),
]);

export interface QmpEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
}

export class Qmp implements Disposable {
  /** Resolves when the connection has ended, for whatever reason. Never rejects. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #timeoutMs: number;
  readonly #onEvent: (event: QmpEvent) => void;
  readonly #pending = new Map<number, Pending>();
  readonly #greeting = Promise.withResolvers<void>();
  #next = 1;
  #buffer = '';

  private constructor(socket: Socket, timeoutMs: number, onEvent: (event: QmpEvent) => void) {
    this.#socket = socket;
    this.#timeoutMs = timeoutMs;
    this.#onEvent = onEvent;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    this.#greeting.promise.catch(() => undefined);
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => this.#receive(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      const gone = new InfraletError('UNAVAILABLE', 'the emulator closed its control connection');
      this.#greeting.reject(gone);
      for (const pending of this.#pending.values()) pending.reject(gone);
      this.#pending.clear();
      resolve();
    });
  }

  /** Connects and negotiates. `timeoutMs` bounds this and each command after it. */
  static async connect(
    path: string,
    options: {
      readonly timeoutMs: number;
      readonly onEvent: (event: QmpEvent) => void;
      readonly signal: AbortSignal;
    },
  ): Promise<Qmp> {
    const socket = connect(path);
    const opened = Promise.withResolvers<void>();
    socket.once('connect', opened.resolve);
    socket.once('error', opened.reject);
    const qmp = new Qmp(socket, options.timeoutMs, options.onEvent);
    try {
      using limit = withTimeout(options.signal, options.timeoutMs, 'connecting to the emulator');
      await abortable(opened.promise, limit);
      await abortable(qmp.#greeting.promise, limit);
      await qmp.execute('qmp_capabilities', {}, limit);
      return qmp;
    } catch (error) {
      qmp[Symbol.dispose]();
      throw error;
    }
  }

  /** Runs one command. Throws FAILED_PRECONDITION with QEMU's own words when it refuses. */
  async execute(command: string, args: Readonly<Record<string, unknown>>, signal: AbortSignal): Promise<unknown> {
    using limit = withTimeout(signal, this.#timeoutMs, `the emulator's answer to ${command}`);
    if (this.#socket.destroyed) throw new InfraletError('UNAVAILABLE', 'the emulator is gone');
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    promise.catch(() => undefined);
    this.#pending.set(id, { resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return await abortable(promise, limit);
    } finally {
      this.#pending.delete(id);
    }
  }

  [Symbol.dispose](): void {
    this.#socket.destroy();
  }

  #receive(chunk: string): void {
    this.#buffer += chunk;
    for (;;) {
      const end = this.#buffer.indexOf('\n');
      if (end < 0) break;
      const line = this.#buffer.slice(0, end);
      this.#buffer = this.#buffer.slice(end + 1);
      if (line.trim() !== '' && !this.#handle(line)) {
        this.#socket.destroy();
        return;
      }
    }
    if (this.#buffer.length > MAX_LINE) this.#socket.destroy();
  }

  /** False when the line is not QMP; the connection is of no use then. */
  #handle(line: string): boolean {
    let message: z.output<typeof messageSchema>;
    try {
      message = messageSchema.parse(JSON.parse(line));
    } catch {
      return false;
    }
    if ('QMP' in message) this.#greeting.resolve();
    else if ('event' in message) this.#onEvent({ name: message.event, data: message.data });
    else if ('error' in message) {
      const { class: kind, desc } = message.error;
      this.#pending.get(message.id)?.reject(new InfraletError('FAILED_PRECONDITION', `QEMU: ${desc} (${kind})`));
    } else this.#pending.get(message.id)?.resolve(message.return);
    return true;
  }
}
