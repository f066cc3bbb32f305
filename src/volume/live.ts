/**
 * Volumes that follow the node: what the kubelet exchanges there is exchanged in the machine, in one step. One watch and
 * one copy per sandbox and volume, however many containers mount it.
 */
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';
import { KeyedRunner } from '../base/exclusive.ts';
import type { SandboxId } from '../base/ids.ts';
import { KeyedLock } from '../base/keyed-lock.ts';
import type { Clock } from '../base/time.ts';
import type { AgentChannel } from '../guest/channel.ts';
import type { Logger } from '../telemetry/log.ts';
import { fingerprint, LINKED, readApiVolume, versionOf } from './api-volume.ts';
import { NodeWatch } from './node-watch.ts';
import type { OnSkipped, TreeLimits } from './tree.ts';

/** One volume may be large; the machine may be emulated. */
const COPY_MS = 600_000;
/** Tries within one copy: the kubelet exchanges a volume seldom, but it may do so while we read. */
const TRIES = 5;

export interface LiveVolume {
  readonly sandboxId: SandboxId;
  /** Real path on the node. */
  readonly source: string;
  readonly kind: 'directory' | 'file';
  /** Name below the agent's root of volumes. */
  readonly name: string;
}

export interface LiveVolumesOptions {
  readonly settings: {
    readonly debounce: number;
    readonly poll: number;
    readonly recheck: number;
    readonly retry: number;
  };
  readonly limits: TreeLimits;
  readonly channelOf: (id: SandboxId) => AgentChannel | undefined;
  readonly clock: Clock;
  readonly log: Logger;
}

interface Followed {
  readonly volume: LiveVolume;
  readonly watch: Disposable;
  /** Fingerprint of what the machine has; undefined: not known, since this daemon has not sent it. */
  sent: string | undefined;
  /** Inside the machine. */
  path: string | undefined;
}

export class LiveVolumes implements AsyncDisposable {
  readonly #options: LiveVolumesOptions;
  readonly #followed = new Map<string, Followed>();
  readonly #lock = new KeyedLock<string>();
  readonly #watch: NodeWatch;
  readonly #runner: KeyedRunner<string>;

  constructor(options: LiveVolumesOptions) {
    this.#options = options;
    const { clock, log, settings } = options;
    this.#watch = new NodeWatch({ pollMs: settings.poll, recheckMs: settings.recheck, clock, log });
    this.#runner = new KeyedRunner({
      clock,
      work: (key, signal) => this.#update(key, signal),
      onError: (key, error) => {
        const { source, sandboxId } = this.#followed.get(key)?.volume ?? {};
        log.warn('a changed volume could not be brought into its machine yet', {
          sandboxId,
          volume: source,
          reason: errorMessage(error),
        });
        return settings.retry;
      },
    });
  }

  /** Brings the volume up to date now and follows it from then on; resolves with its path inside the machine. */
  async add(volume: LiveVolume, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    const followed = this.#follow(volume);
    return await this.#send(followed, channel, signal);
  }

  /** A volume that the machine has from an earlier daemon or session: what it missed is sent soon. */
  resume(volume: LiveVolume): void {
    this.#follow(volume);
    this.#runner.trigger(keyOf(volume));
  }

  forget(sandboxId: SandboxId): void {
    for (const [key, { volume, watch }] of this.#followed) {
      if (volume.sandboxId !== sandboxId) continue;
      watch[Symbol.dispose]();
      this.#followed.delete(key);
    }
  }

  #follow(volume: LiveVolume): Followed {
    const key = keyOf(volume);
    const known = this.#followed.get(key);
    if (known) return known;
    const watch = this.#watch.add(volume.source, volume.kind, () => this.#runner.trigger(key));
    const followed: Followed = { volume, watch, sent: undefined, path: undefined };
    this.#followed.set(key, followed);
    return followed;
  }

  async #update(key: string, signal: AbortSignal): Promise<number | undefined> {
    const followed = this.#followed.get(key);
    // Without a channel there is nothing to do: the next session resumes all volumes.
    const channel = followed && this.#options.channelOf(followed.volume.sandboxId);
    if (!channel) return undefined;
    // An update is several changes in a row.
    await this.#options.clock.sleep(this.#options.settings.debounce, signal);
    if (this.#followed.get(key) !== followed) return undefined;
    try {
      await this.#send(followed, channel, signal);
    } catch (error) {
      // The kubelet takes the volumes of a pod away before we hear that it is to be removed.
      if (hasErrno(error, 'ENOENT') || this.#followed.get(key) !== followed) return undefined;
      throw error;
    }
    return undefined;
  }

  async #send(followed: Followed, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    const { volume } = followed;
    using _one = await this.#lock.acquire(keyOf(volume), signal);
    for (let tries = 1; ; tries += 1) {
      const seen = await fingerprint(volume.source);
      if (followed.sent === seen && followed.path !== undefined) return followed.path;
      // The kubelet is taking it down, piece by piece: containers that are still ending keep the last version.
      if (followed.sent?.startsWith(LINKED) && !seen.startsWith(LINKED) && followed.path) return followed.path;
      // Forgotten meanwhile: its machine is going.
      if (this.#followed.get(keyOf(volume)) !== followed) throw new InfraletError('CANCELLED', 'the sandbox is gone');
      try {
        followed.path = await this.#copy(volume, channel, signal);
        followed.sent = seen;
        return followed.path;
      } catch (error) {
        if (!(error instanceof InfraletError && error.code === 'ABORTED') || tries === TRIES) throw error;
      }
    }
  }

  async #copy(volume: LiveVolume, channel: AgentChannel, signal: AbortSignal): Promise<string> {
    const { limits, log } = this.#options;
    const onSkipped: OnSkipped = (path, why) => log.warn('left out of a volume', { path, why, volume: volume.source });
    const version = volume.kind === 'directory' ? await versionOf(volume.source) : {};
    const started = performance.now();
    const path = await channel.putFiles(
      { root: 'ROOT_VOLUMES', path: volume.name, replace: false, sync: true, ...version },
      readApiVolume(volume.source, limits, onSkipped),
      { signal, timeoutMs: COPY_MS },
    );
    log.debug('volume brought up to date', {
      sandboxId: volume.sandboxId,
      volume: volume.source,
      ms: Math.round(performance.now() - started),
    });
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#runner[Symbol.asyncDispose]();
    await this.#watch[Symbol.asyncDispose]();
  }
}

function keyOf({ sandboxId, name }: LiveVolume): string {
  return `${sandboxId}/${name}`;
}
