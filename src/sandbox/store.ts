/** The sandboxes in memory, each change durable before it is seen; the only place that writes sandbox records. */

import { InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import { abortable } from '../base/keyed-lock.ts';
import type { PodSandboxConfig__Output } from '../gen/runtime/v1/PodSandboxConfig.ts';
import type { Journal, Keepsake } from '../state/journal.ts';
import { parseSandboxRecord, type SandboxRecord, type SandboxState } from './record.ts';

export interface SandboxEntry {
  readonly record: SandboxRecord;
  readonly config: PodSandboxConfig__Output;
}

type Change = Partial<Omit<SandboxRecord, 'id' | 'state' | 'timeline'>>;
/** Phases that are reached with a change, in milliseconds since the epoch; only the first time counts. */
type Phase = Readonly<Record<string, number>>;
/** Told of each change after it was made; undefined: was not there, is not there any more. */
export type SandboxListener = (before: SandboxEntry | undefined, after: SandboxEntry | undefined) => void;

interface Held {
  record: SandboxRecord;
  config: PodSandboxConfig__Output;
  request: Uint8Array;
}

/** Protobuf form of the pod's configuration, as it came from the kubelet. */
export interface ConfigCodec {
  encode(config: PodSandboxConfig__Output): Uint8Array;
  decode(bytes: Uint8Array): PodSandboxConfig__Output;
  /** What stands for the configuration while a machine has no pod. */
  readonly blank: PodSandboxConfig__Output;
}

export class SandboxStore {
  readonly #held = new Map<string, Held>();
  readonly #byAttempt = new Map<string, SandboxId>();
  /** In pools. */
  readonly #members = new Set<SandboxId>();
  /** Rows that could not be read: what they own stays until somebody has looked. */
  readonly #unreadable = new Set<string>();
  readonly #watchers = new Map<SandboxId, Set<() => void>>();
  readonly #journal: Journal;
  readonly #codec: ConfigCodec;

  readonly #listeners: SandboxListener[] = [];
  #version = 0;

  constructor(journal: Journal, codec: ConfigCodec) {
    this.#journal = journal;
    this.#codec = codec;
  }

  /** Fills the memory from the journal; bad rows are reported and left alone. */
  load(report: (id: string, error: unknown) => void): void {
    const onBad = (id: string, error: unknown): void => {
      this.#unreadable.add(id);
      report(id, error);
    };
    for (const row of this.#journal.all('sandboxes', onBad)) {
      try {
        const record = parseSandboxRecord(row.record);
        this.#hold({ record, config: this.#codec.decode(row.request), request: row.request });
      } catch (error) {
        onBad(row.id, error);
      }
    }
  }

  add(record: SandboxRecord, config: PodSandboxConfig__Output): void {
    const request = this.#codec.encode(config);
    this.#journal.putSandbox(record.id, record, request);
    this.#hold({ record, config, request });
    this.#tell(undefined, { record, config });
  }

  onChange(listener: SandboxListener): void {
    this.#listeners.push(listener);
  }

  #tell(before: SandboxEntry | undefined, after: SandboxEntry | undefined): void {
    for (const listener of this.#listeners) listener(before, after);
  }

  /** A machine for a pool. */
  addMember(record: SandboxRecord): void {
    this.add(record, this.#codec.blank);
  }

  /**
   * Gives the machine of a pool's member to a pod, in one durable write: a crash leaves a member or a pod's sandbox.
   * False when it is none that waits.
   */
  claim(id: SandboxId, change: Partial<Omit<SandboxRecord, 'id'>>, config: PodSandboxConfig__Output): boolean {
    const held = this.#held.get(id);
    if (!held || !isWaiting(held.record)) return false;
    const record: SandboxRecord = { ...held.record, ...change, pool: '' };
    const request = this.#codec.encode(config);
    this.#journal.replaceSandbox(id, record, request);
    const before = { ...held };
    Object.assign(held, { record, config, request });
    this.#hold(held);
    this.#tell(before, held);
    this.#wake(id);
    return true;
  }

  #hold(held: Held): void {
    this.#held.set(held.record.id, held);
    this.#version += 1;
    if (held.record.pool !== '') {
      this.#members.add(held.record.id);
      return;
    }
    this.#members.delete(held.record.id);
    this.#byAttempt.set(attemptKey(held.record.podUid, held.record.attempt), held.record.id);
  }

  /** Another number after every change. */
  get version(): number {
    return this.#version;
  }

  get(id: SandboxId): SandboxEntry | undefined {
    return this.#held.get(id);
  }

  /** By a text that may be an id. */
  find(text: string): SandboxEntry | undefined {
    return this.#held.get(text);
  }

  /** Whether the journal has such a sandbox, be it one that cannot be read. */
  knows(id: string): boolean {
    return this.#held.has(id) || this.#unreadable.has(id);
  }

  /** The sandbox of a pod's attempt, if there is one. */
  byAttempt(podUid: string, attempt: number): SandboxEntry | undefined {
    const id = this.#byAttempt.get(attemptKey(podUid, attempt));
    return id === undefined ? undefined : this.#held.get(id);
  }

  all(): readonly SandboxEntry[] {
    return [...this.#held.values()];
  }

  /** The machines of a pool that no pod has yet, the oldest first. */
  members(pool: string): readonly SandboxRecord[] {
    return [...this.#members].flatMap((id) => {
      const record = this.#held.get(id)?.record;
      return record?.pool === pool ? [record] : [];
    });
  }

  /** Changes fields; undefined when the sandbox is gone, so that late results are dropped. */
  update(id: SandboxId, change: Change, phase?: Phase): SandboxRecord | undefined {
    return this.#write(id, change, phase);
  }

  /** Moves the state if it is one of `from`; false says that the caller's result is stale. */
  transition(
    id: SandboxId,
    from: readonly SandboxState[],
    to: SandboxState,
    change: Change = {},
    phase?: Phase,
  ): boolean {
    const held = this.#held.get(id);
    if (!held?.record || !from.includes(held.record.state)) return false;
    this.#write(id, { ...change, state: to }, phase);
    return true;
  }

  /** Notes when a phase was reached, the first time only. */
  mark(id: SandboxId, phase: string, at: number): void {
    const held = this.#held.get(id);
    if (!held || phase in held.record.timeline) return;
    this.#write(id, {}, { [phase]: at });
  }

  #write(id: SandboxId, change: Partial<SandboxRecord>, phases: Phase = {}): SandboxRecord | undefined {
    const held = this.#held.get(id);
    if (!held) return undefined;
    // What was reached before stays as it was.
    const timeline = { ...phases, ...held.record.timeline };
    const record = { ...held.record, ...change, timeline };
    this.#journal.putSandbox(id, record, held.request);
    const before = { ...held };
    held.record = record;
    this.#version += 1;
    this.#tell(before, held);
    this.#wake(id);
    return record;
  }

  /** @param keep what stays known of it, for `infralet why`. */
  remove(id: SandboxId, keep?: Pick<Keepsake, 'at' | 'keep'>): void {
    const held = this.#held.get(id);
    if (!held) return;
    const { record } = held;
    // Machines of pools come and go; only why one has failed is of interest.
    const failed = record.state === 'failed' || (record.pool === '' && !record.listed);
    const keepsake =
      keep && (failed || record.pool === '') ? { ...keep, failed, record: withoutSecrets(record) } : undefined;
    this.#journal.deleteSandbox(id, keepsake);
    this.#held.delete(id);
    this.#members.delete(id);
    this.#version += 1;
    const key = attemptKey(held.record.podUid, held.record.attempt);
    if (this.#byAttempt.get(key) === id) this.#byAttempt.delete(key);
    this.#tell(held, undefined);
    this.#wake(id);
  }

  #wake(id: SandboxId): void {
    for (const watcher of this.#watchers.get(id) ?? []) watcher();
  }

  /** Resolves with the first defined answer of `look`, asked now and after each change; undefined record: it is gone. */
  async wait<T>(
    id: SandboxId,
    look: (record: SandboxRecord | undefined) => T | undefined,
    signal: AbortSignal,
  ): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const check = (): void => {
      try {
        const found = look(this.#held.get(id)?.record);
        if (found !== undefined) resolve(found);
      } catch (error) {
        reject(InfraletError.from(error));
      }
    };
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers.add(check));
    check();
    try {
      return await abortable(promise, signal);
    } finally {
      watchers.delete(check);
      if (watchers.size === 0) this.#watchers.delete(id);
    }
  }
}

/** Whether this is a machine without a pod that may get one. */
export function isWaiting(record: SandboxRecord): boolean {
  const { pool, wanted, state, power, rehearsed } = record;
  return rehearsed && pool !== '' && wanted === 'ready' && state === 'connected' && power !== 'suspending';
}

function withoutSecrets(record: SandboxRecord): SandboxRecord {
  return { ...record, enrolToken: '' };
}

function attemptKey(podUid: string, attempt: number): string {
  return `${podUid}/${attempt}`;
}
