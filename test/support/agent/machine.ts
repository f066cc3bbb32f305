/** A "machine" for tests: the real agent program as a child process on a root of its own, reached over loopback. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { newSandboxId } from '../../../src/base/ids.ts';
import { type Clock, systemClock, until } from '../../../src/base/time.ts';
import { configSchema } from '../../../src/config/schema.ts';
import type { AgentChannel, ChannelDialer, MachineIdentity } from '../../../src/guest/channel.ts';
import { createDialer } from '../../../src/guest/dialer.ts';
import type { TokenStore } from '../../../src/guest/enrol.ts';
import type { HandshakeTimes } from '../../../src/guest/handshake.ts';
import { type NodePki, openPki, type PkiOptions } from '../../../src/pki/authority.ts';
import type { Logger } from '../../../src/telemetry/log.ts';
import { FakeContainerd } from './containerd.ts';

const HOUR = 3_600_000;

/** Everything one test needs; disposing ends the processes and removes the files. */
export class AgentWorld implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'infralet-agent-'));
  readonly log = new RecordingLog();
  readonly used = new Set<string>();
  readonly #stack = new AsyncDisposableStack();

  static async create(): Promise<AgentWorld> {
    return new AgentWorld();
  }

  /** A node's PKI; a different `name` is a different node. */
  async pki(name = 'node', overrides: Partial<PkiOptions> = {}): Promise<NodePki> {
    return await openPki({
      stateDir: join(this.dir, name),
      cluster: 'test',
      caLife: 24 * HOUR,
      leafLife: HOUR,
      renewBefore: HOUR / 3,
      clockSkew: 60_000,
      clock: systemClock,
      log: this.log,
      ...overrides,
    });
  }

  get tokens(): TokenStore {
    return {
      consume: (hash) => {
        if (this.used.has(hash)) return false;
        this.used.add(hash);
        return true;
      },
    };
  }

  dialer(
    pki: NodePki,
    options: { readonly maxMessage?: number; readonly clock?: Clock; readonly times?: HandshakeTimes } = {},
  ): ChannelDialer {
    return createDialer({
      pki,
      tokens: this.tokens,
      limits: configSchema.parse({}).guest,
      maxMessage: options.maxMessage ?? 16 * 1024 * 1024,
      clock: options.clock ?? systemClock,
      log: this.log,
      ...(options.times ? { times: options.times } : {}),
    });
  }

  /** Starts a machine with that user data. */
  async machine(userData: string | undefined, options: MachineOptions = {}): Promise<TestMachine> {
    const machine = new TestMachine(mkdtempSync(join(this.dir, 'machine-')), userData, options);
    this.#stack.use(machine);
    await machine.start();
    return machine;
  }

  /** Starts a machine that has to ask the metadata service at `url`. */
  async cloudMachine(url: string, args: readonly string[] = [], onExit?: () => void): Promise<TestMachine> {
    return await this.machine(undefined, { args: [`--metadata=${url}`, ...args], ...(onExit ? { onExit } : {}) });
  }

  async containerd(machineDir: string): Promise<FakeContainerd> {
    const socket = join(machineDir, 'run', 'containerd', 'containerd.sock');
    mkdirSync(join(machineDir, 'run', 'containerd'), { recursive: true });
    return await this.#stack.use(new FakeContainerd(socket)).start();
  }

  /** A machine that has enrolled, its channel and its identity. */
  async enrolled(options: MachineOptions & { readonly pki?: NodePki; readonly maxMessage?: number } = {}): Promise<{
    readonly machine: TestMachine;
    readonly channel: AgentChannel;
    readonly dialer: ChannelDialer;
    readonly identity: MachineIdentity;
    readonly token: string;
  }> {
    const pki = options.pki ?? (await this.pki());
    const dialer = this.dialer(pki, options.maxMessage === undefined ? {} : { maxMessage: options.maxMessage });
    const token = dialer.newToken();
    const identity = newIdentity();
    const machine = await this.machine(dialer.userData(token, identity), options);
    const channel = this.#stack.use(await dialer.enrol(machine.address, identity, token, soon()));
    return { machine, channel, dialer, identity, token };
  }

  use<T extends AsyncDisposable | Disposable>(resource: T): T {
    return this.#stack.use(resource);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

export interface MachineOptions {
  /** Port of the "containerd streaming server". */
  readonly streamingPort?: number;
  /** Command line before the agent's options. @default the agent from source */
  readonly program?: readonly string[];
  readonly args?: readonly string[];
  /** It has ended, by itself or not. */
  readonly onExit?: () => void;
  /** A network namespace to run in, and the address there that it listens on. @default this one, loopback */
  readonly place?: { readonly netns: string; readonly host: string };
}

export class TestMachine implements AsyncDisposable {
  readonly dir: string;
  readonly lines: Record<string, unknown>[] = [];
  readonly #options: MachineOptions;
  #child: ChildProcess | undefined;
  #port = 0;
  imagesPort = 0;

  constructor(dir: string, userData: string | undefined, options: MachineOptions) {
    this.dir = dir;
    this.#options = options;
    if (userData !== undefined) writeFileSync(join(dir, 'user-data'), userData, { mode: 0o600 });
  }

  get address(): { host: string; port: number } {
    return { host: this.#host, port: this.#port };
  }

  get #host(): string {
    return this.#options.place?.host ?? '127.0.0.1';
  }

  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Starts the agent; after a kill it comes back on the same ports, as in a real machine. */
  async start(): Promise<void> {
    const program = this.#options.program ?? [join(import.meta.dirname, '../../../src/agent/main.ts')];
    const { place } = this.#options;
    const [file, before] = place
      ? ['ip', ['netns', 'exec', place.netns, process.execPath]]
      : [process.execPath, [] as const];
    const child = spawn(
      file,
      [
        ...before,
        ...program,
        `--root=${this.dir}`,
        `--user-data=${join(this.dir, 'user-data')}`,
        `--listen=${this.#host}:${this.#port}`,
        `--images=127.0.0.1:${this.imagesPort}`,
        `--streaming=127.0.0.1:${this.#options.streamingPort ?? 1}`,
        ...(this.#options.args ?? []),
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    );
    this.#child = child;
    // A test that runs out of time disposes of nothing; its agent must not outlive it all the same.
    const reap = (): void => void child.kill('SIGKILL');
    process.once('exit', reap);
    child.once('exit', () => {
      process.off('exit', reap);
      this.#options.onExit?.();
    });
    const from = this.lines.length;
    const raw: string[] = [];
    createInterface({ input: child.stderr }).on('line', (line) => {
      raw.push(line);
      try {
        this.lines.push(JSON.parse(line) as Record<string, unknown>);
      } catch {
        // A line of Node itself.
      }
    });
    await until(
      () => {
        if (child.exitCode !== null) throw new Error(`the agent ended: ${raw.join('\n')}`);
        const listening = this.lines.slice(from).find((line) => line['msg'] === 'listening');
        if (!listening) return undefined;
        this.#port = Number(listening['port']);
        this.imagesPort = Number(listening['imagesPort']);
        return true;
      },
      { everyMs: 10, signal: AbortSignal.timeout(20_000) },
    );
  }

  /** kill -9, and waits until it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
  }

  /** Waits for a line of the agent's log. */
  async logged(match: Readonly<Record<string, unknown>>): Promise<Record<string, unknown>> {
    return await until(
      () => this.lines.find((line) => Object.entries(match).every(([key, value]) => line[key] === value)),
      { everyMs: 10, signal: AbortSignal.timeout(10_000) },
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    // Keepers of logs outlive their agent, as in a real machine; a test that failed has not removed them.
    for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
      if (workingDirectory(pid).startsWith(`${this.dir}/`)) process.kill(Number(pid), 'SIGKILL');
    }
  }
}

/** Empty when the process has ended. */
function workingDirectory(pid: string): string {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return '';
  }
}

export function newIdentity(): MachineIdentity {
  return { sandboxId: newSandboxId(), instanceId: `i-${newSandboxId().slice(0, 8)}` };
}

/** Options of a call that has to be quick. */
export function soon(timeoutMs = 10_000): { signal: AbortSignal; timeoutMs: number } {
  return { signal: AbortSignal.timeout(timeoutMs + 5000), timeoutMs };
}

/** Keeps what is logged, for tests about refusals. */
class RecordingLog implements Logger {
  readonly entries: { readonly level: string; readonly message: string; readonly fields: object }[] = [];
  readonly #add = (level: string) => (message: string, fields?: object) =>
    void this.entries.push({ level, message, fields: fields ?? {} });
  readonly trace = this.#add('trace');
  readonly debug = this.#add('debug');
  readonly info = this.#add('info');
  readonly warn = this.#add('warn');
  readonly error = this.#add('error');

  child(): Logger {
    return this;
  }

  /** All warnings as text. */
  get warnings(): string {
    return this.entries
      .filter(({ level }) => level === 'warn')
      .map((entry) => JSON.stringify(entry))
      .join('\n');
  }
}
