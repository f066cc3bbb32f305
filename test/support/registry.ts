/** Debian's docker-registry on a free loopback port, with or without passwords. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { freePort } from '../../src/base/free-port.ts';
import { run } from '../../src/base/process.ts';
import { until } from '../../src/base/time.ts';

export const REGISTRY_USER = 'tester';
export const REGISTRY_PASSWORD = 'correct horse';
/** bcrypt of the password above: the only form docker-registry takes, and nothing here can make one. */
const HTPASSWD = `${REGISTRY_USER}:$2b$05$pcT0Xco2tBnjGRLIct97HOHN.UbQE9MgwzMOwLTMAtN6/LQNGKszG\n`;

export interface Registry extends AsyncDisposable {
  /** "127.0.0.1:<port>". */
  readonly host: string;
  /** registries.conf that lets skopeo speak plain HTTP with it: `image.registriesConf`. */
  readonly registriesConf: string;
  /** Copies an image in: `name` is "repository:tag". `flags` are skopeo's, such as --all or --format=v2s2. */
  push(location: string, name: string, flags?: readonly string[]): Promise<void>;
  /** Requests so far, as "METHOD /path STATUS". */
  requests(): Promise<readonly string[]>;
  /** Ends it as a crash would. */
  kill(): Promise<void>;
}

export interface RegistryOptions {
  /** Asks for REGISTRY_USER and REGISTRY_PASSWORD. @default false */
  readonly auth?: boolean;
  /** PEM files; without them it speaks plain HTTP. */
  readonly tls?: { readonly certificate: string; readonly key: string };
}

/** Starts a registry that keeps everything below `directory`. */
export async function startRegistry(directory: string, options: RegistryOptions = {}): Promise<Registry> {
  await mkdir(directory, { recursive: true });
  const host = `127.0.0.1:${await freePort()}`;
  const configFile = join(directory, 'config.json');
  const logFile = join(directory, 'registry.log');
  const registriesConf = join(directory, 'registries.conf');
  const htpasswd = join(directory, 'htpasswd');
  await writeFile(htpasswd, HTPASSWD);
  await writeFile(registriesConf, insecureRegistries([host]));
  // JSON is YAML.
  const config = {
    version: '0.1',
    log: { level: 'warn', accesslog: { disabled: false } },
    storage: { filesystem: { rootdirectory: join(directory, 'data') }, delete: { enabled: true } },
    http: {
      addr: host,
      ...(options.tls ? { tls: { certificate: options.tls.certificate, key: options.tls.key } } : {}),
    },
    ...(options.auth ? { auth: { htpasswd: { realm: 'test', path: htpasswd } } } : {}),
  };
  await writeFile(configFile, JSON.stringify(config));
  const child = spawn('docker-registry', ['serve', configFile], { stdio: ['ignore', 'pipe', 'pipe'] });
  const log = createWriteStream(logFile);
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  await ready(child, host);
  const kill = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  };
  return {
    host,
    registriesConf,
    push: async (location, name, flags = []) => {
      const credentials = options.auth ? ['--dest-creds', `${REGISTRY_USER}:${REGISTRY_PASSWORD}`] : [];
      const fixed = ['--insecure-policy', 'copy', '--quiet', '--dest-tls-verify=false'];
      await run('skopeo', [...fixed, ...credentials, ...flags, location, `docker://${host}/${name}`], {
        signal: AbortSignal.timeout(60_000),
        timeoutMs: 60_000,
        env: scratchEnvironment(directory),
      });
    },
    requests: async () =>
      [...(await readFile(logFile, 'utf8')).matchAll(/"(GET|HEAD|POST|PUT|PATCH) (\S+) HTTP\/1\.1" (\d+)/g)].map(
        ([, method, path, status]) => `${method} ${path} ${status}`,
      ),
    kill,
    [Symbol.asyncDispose]: async () => {
      await kill();
      log.end();
    },
  };
}

/** registries.conf text that marks hosts as plain HTTP. */
export function insecureRegistries(hosts: readonly string[]): string {
  return hosts.map((host) => `[[registry]]\nlocation = "${host}"\ninsecure = true\n`).join('\n');
}

/** For skopeo run by tests: keeps its blob cache out of /var/lib/containers. */
export function scratchEnvironment(directory: string): Readonly<Record<string, string>> {
  return { XDG_DATA_HOME: join(directory, 'skopeo'), _CONTAINERS_ROOTLESS_UID: '1' };
}

async function ready(child: ChildProcess, host: string): Promise<void> {
  const [address = '', port = ''] = host.split(':');
  await until(
    async () => {
      if (child.exitCode !== null) throw new Error(`docker-registry ended with exit code ${child.exitCode}`);
      const socket = connect(Number(port), address);
      const { promise, resolve } = Promise.withResolvers<true | undefined>();
      socket.once('connect', () => resolve(true)).once('error', () => resolve(undefined));
      const open = await promise;
      socket.destroy();
      return open;
    },
    { everyMs: 20, signal: AbortSignal.timeout(20_000) },
  );
}
