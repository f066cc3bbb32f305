/** The program that talks to registries: which arguments, which environment, what its errors mean. */
import { access } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { tryRun } from '../base/process.ts';
import { type Credentials, writeAuthFile } from './credentials.ts';
import type { Platform } from './manifest.ts';
import type { Sink } from './sink.ts';
import { skopeoError } from './skopeo-errors.ts';

export interface SkopeoOptions {
  readonly skopeo: string;
  readonly registriesConf?: string | undefined;
  readonly policy?: string | undefined;
  readonly certsDir?: string | undefined;
  readonly pullTimeout: number;
  readonly platform: Platform;
}

/** Where an image comes from, and what is needed to get it. */
export interface Source {
  /** In skopeo's spelling: "docker://…", "docker-archive:…". */
  readonly location: string;
  /** For messages: the name the user knows. */
  readonly image: string;
  /** Host of the registry; undefined for files. */
  readonly registry: string | undefined;
  readonly credentials: Credentials | undefined;
  /** Files that the administrator loads are not checked against the signature policy. */
  readonly trusted: boolean;
}

export class Skopeo {
  readonly #options: SkopeoOptions;

  constructor(options: SkopeoOptions) {
    this.#options = options;
  }

  /** The manifest or index, byte for byte. */
  async inspect(source: Source, directory: string, signal: AbortSignal): Promise<Uint8Array> {
    await using auth = await writeAuthFile(join(directory, 'auth.json'), source.registry ?? '', source.credentials);
    const certificates = await this.#certificates(source);
    const flags = [
      '--raw',
      '--no-tags',
      '--authfile',
      auth.path,
      ...(certificates ? ['--cert-dir', certificates] : []),
    ];
    return Buffer.from(await this.#run('inspect', [...flags, source.location], source, directory, signal));
  }

  /** Sends what the sink lacks of the image to it. */
  async copy(source: Source, sink: Sink, directory: string, signal: AbortSignal): Promise<void> {
    await using auth = await writeAuthFile(join(directory, 'auth.json'), source.registry ?? '', source.credentials);
    await using sinkAuth = await writeAuthFile(join(directory, 'sink.json'), sink.registry, sink.credentials);
    const certificates = await this.#certificates(source);
    const flags = [
      '--preserve-digests',
      '--remove-signatures',
      '--src-authfile',
      auth.path,
      '--dest-authfile',
      sinkAuth.path,
      '--dest-tls-verify=false',
      ...(certificates ? ['--src-cert-dir', certificates] : []),
    ];
    await this.#run('copy', [...flags, source.location, sink.destination], source, directory, signal);
  }

  async #run(
    command: string,
    rest: readonly string[],
    source: Source,
    directory: string,
    signal: AbortSignal,
  ): Promise<string> {
    const { skopeo, pullTimeout } = this.#options;
    // Without the death signal, a kill of this daemon would leave a skopeo that waits for a stalled registry.
    const argv = ['--pdeathsig', 'KILL', '--', skopeo, ...(await this.#globals(source)), command, ...rest];
    const result = await tryRun('setpriv', argv, {
      signal,
      timeoutMs: pullTimeout,
      env: {
        // The cache of "which registry has this blob" would learn the sink's port: it belongs to this run alone.
        XDG_DATA_HOME: join(directory, 'data'),
        _CONTAINERS_ROOTLESS_UID: '1',
        TMPDIR: directory,
      },
    });
    if (/^setpriv: failed to execute/m.test(result.stderr)) {
      throw new InfraletError('INTERNAL', `pulling image ${source.image}: ${skopeo} is not installed`, {
        hint: 'run `infralet doctor`: it names the package and the command to install it',
      });
    }
    if (result.exitCode !== 0) throw skopeoError(source, result.stderr);
    return result.stdout;
  }

  async #globals(source: Source): Promise<readonly string[]> {
    const { registriesConf, policy, platform, pullTimeout } = this.#options;
    return [
      '--override-os',
      platform.os,
      '--override-arch',
      platform.architecture,
      '--command-timeout',
      `${Math.ceil(pullTimeout / 1000)}s`,
      ...(registriesConf === undefined ? [] : ['--registries-conf', registriesConf]),
      ...(source.trusted || (policy === undefined && !(await hasSystemPolicy()))
        ? ['--insecure-policy']
        : policy === undefined
          ? []
          : ['--policy', policy]),
    ];
  }

  /** skopeo's flag wants the registry's own directory within containers-certs.d(5). */
  async #certificates(source: Source): Promise<string | undefined> {
    const { certsDir } = this.#options;
    if (certsDir === undefined || source.registry === undefined) return undefined;
    const directory = join(certsDir, source.registry);
    return (await exists(directory)) ? directory : undefined;
  }
}

async function hasSystemPolicy(): Promise<boolean> {
  return (
    (await exists('/etc/containers/policy.json')) || (await exists(join(homedir(), '.config/containers/policy.json')))
  );
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch {
    return false;
  }
}
