/** A whole node for end-to-end tests: the real daemon as a process, its own state, sockets, bridge and subnet. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AdminClient, connectAdmin } from '../../src/admin/client.ts';
import { until } from '../../src/base/time.ts';
import { bridgePlugin, conflist, PORTMAP_PLUGIN } from './cni.ts';
import { type CriClient, criClient } from './cri-client.ts';
import { sharedTemplates } from './e2e-setup.ts';
import { guestImage } from './guest.ts';
import { removeBridge } from './host-leftovers.ts';
import { busyboxImage } from './images.ts';

const KILL_AT = new URL('./kill-at.ts', import.meta.url).pathname;
const MAIN = new URL('../../src/main.ts', import.meta.url).pathname;
/** Tests on one host take different bridges and subnets; 10.245–10.249 are nobody's here. */
let serial = 0;

/** Booting an emulated machine on a busy host. */
export const BOOT_MS = 240_000;
/** Starting the daemon there. */
const DAEMON_MS = 120_000;

export const BUSYBOX = 'e2e.test/busybox:1';

export interface TestNodeOptions {
  /** Merged into the configuration's top level. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** A moment in the life of the daemon at which it is killed, written to this file by the test (test/support/kill-at.ts). */
  readonly killAt?: string;
}

export class TestNode implements AsyncDisposable {
  readonly directory: string;
  readonly stateDir: string;
  readonly socket: string;
  readonly logs: string;
  readonly bridge: string;
  readonly configFile: string;
  readonly #killAt: string | undefined;
  #child: ChildProcess | undefined;
  #cri: CriClient | undefined;
  #admin: AdminClient | undefined;

  private constructor(directory: string, bridge: string, killAt: string | undefined) {
    this.directory = directory;
    this.#killAt = killAt;
    this.bridge = bridge;
    this.stateDir = join(directory, 'state');
    this.socket = join(directory, 'run', 'infralet.sock');
    this.logs = join(directory, 'logs');
    this.configFile = join(directory, 'infralet.yaml');
  }

  /** A started daemon with the busybox image loaded. */
  static async start(options: TestNodeOptions = {}): Promise<TestNode> {
    const guest = await guestImage();
    const directory = await mkdtemp(join(tmpdir(), 'infralet-e2e-'));
    serial += 1;
    const node = new TestNode(directory, `inft${process.pid % 10_000}x${serial}`.slice(0, 15), options.killAt);
    const cni = join(directory, 'cni');
    await mkdir(cni);
    await mkdir(node.logs);
    const subnet = `10.${245 + (serial % 5)}.${process.pid % 250}.0/24`;
    await writeFile(
      join(cni, '10-test.conflist'),
      conflist(node.bridge, [bridgePlugin(node.bridge, subnet), PORTMAP_PLUGIN]),
    );
    const config = {
      cluster: 'e2e',
      node: 'e2e-node',
      stateDir: node.stateDir,
      guestImageDir: guest,
      server: { socket: node.socket },
      network: { confDir: cni, cacheDir: join(directory, 'cni-cache') },
      // Booted once for all test files.
      providers: { qemu: { templateDir: sharedTemplates() } },
      log: { level: 'debug', format: 'json' },
      ...options.settings,
    };
    // JSON is YAML.
    await writeFile(node.configFile, JSON.stringify(config));
    try {
      await node.boot();
      await node.loadBusybox();
      return node;
    } catch (error) {
      const log = await node.daemonLog();
      await node[Symbol.asyncDispose]();
      throw new Error(`the daemon did not start:\n${log.slice(-4000)}`, { cause: error });
    }
  }

  get cri(): CriClient {
    if (!this.#cri) throw new Error('the daemon is not running');
    return this.#cri;
  }

  get admin(): AdminClient {
    if (!this.#admin) throw new Error('the daemon is not running');
    return this.#admin;
  }

  get daemonPid(): number {
    if (this.#child?.pid === undefined) throw new Error('the daemon is not running');
    return this.#child.pid;
  }

  /** Starts the daemon (again) and waits until it answers. */
  async boot(): Promise<void> {
    const log = createWriteStream(join(this.directory, 'daemon.log'), { flags: 'a' });
    await once(log, 'open');
    const preload = this.#killAt === undefined ? [] : ['--import', KILL_AT];
    const child = spawn(process.execPath, [...preload, MAIN, 'serve', '--config', this.configFile], {
      stdio: ['ignore', log, log],
      env: { ...process.env, ...(this.#killAt === undefined ? {} : { KILL_AT: this.#killAt }) },
    });
    this.#child = child;
    log.end();
    const listening = async (): Promise<true | undefined> => {
      if (child.exitCode !== null) throw new Error(`the daemon ended with exit code ${child.exitCode}`);
      return await listens(this.socket);
    };
    await until(listening, { everyMs: 20, signal: AbortSignal.timeout(DAEMON_MS) });
    // Not before: a client that was refused once waits for a second.
    this.#cri = criClient(this.socket);
    this.#admin = connectAdmin(this.socket);
    await this.#cri.Version({}, { timeoutMs: DAEMON_MS });
  }

  /** Resolves when the daemon was killed by somebody else. */
  async killed(signal: AbortSignal): Promise<void> {
    const child = this.#child;
    if (child && child.signalCode === null) await once(child, 'exit', { signal });
    await this.kill();
  }

  /** Ends the daemon without a word; its machines go on. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    this.#cri?.[Symbol.dispose]();
    this.#admin?.[Symbol.dispose]();
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, 'exit');
    child.kill(signal);
    await gone;
  }

  async loadBusybox(): Promise<void> {
    const directory = await mkdtemp(join(this.directory, 'image-'));
    const { location } = await busyboxImage(directory);
    await this.admin.loadImage(location, [BUSYBOX], { signal: AbortSignal.timeout(60_000), timeoutMs: 60_000 });
  }

  /** Waits until every pool has as many machines waiting as it should. */
  async poolsFilled(signal: AbortSignal): Promise<void> {
    const full = async (): Promise<true | undefined> => {
      const pools = await this.admin.pools({ signal, timeoutMs: 10_000 });
      const short = pools.some((pool) => pool['waiting'] !== (pool['target'] as { readonly size: number }).size);
      return short ? undefined : true;
    };
    await until(full, { everyMs: 100, signal });
  }

  /** From the next start of the daemon on. */
  async configure(settings: Readonly<Record<string, unknown>>): Promise<void> {
    const now: unknown = JSON.parse(await readFile(this.configFile, 'utf8'));
    await writeFile(this.configFile, JSON.stringify({ ...(now as object), ...settings }));
  }

  async daemonLog(): Promise<string> {
    return await readFile(join(this.directory, 'daemon.log'), 'utf8').catch(() => '');
  }

  /** Ids of the machines whose directory exists. */
  async machines(): Promise<readonly string[]> {
    return await readdir(join(this.stateDir, 'providers', 'qemu', 'machines')).catch(() => []);
  }

  /** Waits until there are so many machines: one that failed while it was made for a pool goes a moment after the next has come. */
  async untilMachines(count: number): Promise<void> {
    const right = async (): Promise<true | undefined> => ((await this.machines()).length === count ? true : undefined);
    await until(right, { everyMs: 20, signal: AbortSignal.timeout(60_000) });
  }

  /** Loopback port of the agent of the only machine. */
  async agentPort(): Promise<number> {
    const [id = ''] = await this.machines();
    const path = join(this.stateDir, 'providers', 'qemu', 'machines', id, 'machine.json');
    const port = /"port":\s*(\d+)/.exec(await readFile(path, 'utf8'))?.[1];
    return Number(port);
  }

  /** Machines that wait for pods go when no pool is configured any more. */
  async #emptyPools(): Promise<void> {
    const limits = { signal: AbortSignal.timeout(20_000), timeoutMs: 20_000 };
    if ((await this.admin.pools(limits)).length === 0) return;
    await this.configure({ pools: {} });
    await this.kill('SIGTERM');
    await this.boot();
  }

  /** Removes all pods, stops the daemon, takes the bridge down. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (!this.#child) await this.boot().catch(() => undefined);
      if (this.#child) await this.#removePods();
    } finally {
      await this.kill('SIGTERM');
      await removeBridge(this.bridge, AbortSignal.timeout(20_000));
      await rm(this.directory, { recursive: true, force: true });
    }
  }

  async #removePods(): Promise<void> {
    await this.#emptyPools();
    const { items } = await this.cri.ListPodSandbox();
    const remove = async ({ id }: { readonly id: string }): Promise<void> => {
      await this.cri.RemovePodSandbox({ podSandboxId: id }, { timeoutMs: 60_000 });
    };
    await Promise.all(items.map(remove));
    // Also those that never were ready, with their networks.
    const left = async (): Promise<number> =>
      (await this.machines()).length + (await readdir(join(this.stateDir, 'network')).catch(() => [])).length;
    await until(async () => ((await left()) === 0 ? true : undefined), {
      everyMs: 100,
      signal: AbortSignal.timeout(60_000),
    });
  }
}

async function listens(socket: string): Promise<true | undefined> {
  const connection = connect(socket);
  try {
    await once(connection, 'connect');
    return true;
  } catch {
    return undefined;
  } finally {
    connection.destroy();
  }
}
