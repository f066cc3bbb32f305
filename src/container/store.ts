/** The containers in memory, each change durable before it is seen; the only place that writes container records. */
import type { ContainerId, SandboxId } from '../base/ids.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { Journal } from '../state/journal.ts';
import { type ContainerRecord, parseContainerRecord } from './record.ts';

export interface ContainerEntry {
  readonly record: ContainerRecord;
  readonly config: ContainerConfig__Output;
}

/** Protobuf form of the container's configuration, as it came from the kubelet. */
export interface ContainerCodec {
  encode(config: ContainerConfig__Output): Uint8Array;
  decode(bytes: Uint8Array): ContainerConfig__Output;
}

/** Told of each change after it was made; undefined: was not there, is not there any more. */
export type ContainerListener = (before: ContainerEntry | undefined, after: ContainerEntry | undefined) => void;

interface Held {
  record: ContainerRecord;
  readonly config: ContainerConfig__Output;
  readonly request: Uint8Array;
}

export class ContainerStore {
  readonly #held = new Map<string, Held>();
  readonly #bySandbox = new Map<SandboxId, Set<ContainerId>>();
  readonly #journal: Journal;
  readonly #codec: ContainerCodec;

  readonly #listeners: ContainerListener[] = [];
  #version = 0;

  constructor(journal: Journal, codec: ContainerCodec) {
    this.#journal = journal;
    this.#codec = codec;
  }

  load(onBad: (id: string, error: unknown) => void): void {
    for (const row of this.#journal.all('containers', onBad)) {
      try {
        const record = parseContainerRecord(row.record);
        this.#hold({ record, config: this.#codec.decode(row.request), request: row.request });
      } catch (error) {
        onBad(row.id, error);
      }
    }
  }

  add(record: ContainerRecord, config: ContainerConfig__Output): void {
    const request = this.#codec.encode(config);
    this.#journal.putContainer(record.id, record.sandboxId, record, request);
    this.#hold({ record, config, request });
    this.#tell(undefined, { record, config });
  }

  onChange(listener: ContainerListener): void {
    this.#listeners.push(listener);
  }

  #tell(before: ContainerEntry | undefined, after: ContainerEntry | undefined): void {
    for (const listener of this.#listeners) listener(before, after);
  }

  #hold(held: Held): void {
    const { id, sandboxId } = held.record;
    this.#held.set(id, held);
    this.#version += 1;
    this.#bySandbox.set(sandboxId, (this.#bySandbox.get(sandboxId) ?? new Set()).add(id));
  }

  /** Another number after every change. */
  get version(): number {
    return this.#version;
  }

  /** By a text that may be an id. */
  find(text: string): ContainerEntry | undefined {
    return this.#held.get(text);
  }

  all(): readonly ContainerEntry[] {
    return [...this.#held.values()];
  }

  ofSandbox(id: SandboxId): readonly ContainerEntry[] {
    return [...(this.#bySandbox.get(id) ?? [])].flatMap((container) => this.#held.get(container) ?? []);
  }

  /** Changes fields; undefined when the container is gone, so that late results are dropped. */
  update(id: ContainerId, change: Partial<Omit<ContainerRecord, 'id' | 'sandboxId'>>): ContainerRecord | undefined {
    const held = this.#held.get(id);
    if (!held) return undefined;
    const record = { ...held.record, ...change };
    this.#journal.putContainer(id, record.sandboxId, record, held.request);
    const before = { ...held };
    held.record = record;
    this.#version += 1;
    this.#tell(before, held);
    return record;
  }

  remove(id: ContainerId): void {
    const held = this.#held.get(id);
    if (!held) return;
    this.#journal.deleteContainer(id);
    this.#held.delete(id);
    this.#version += 1;
    this.#bySandbox.get(held.record.sandboxId)?.delete(id);
    this.#tell(held, undefined);
  }

  /** After the journal forgot a whole sandbox. */
  forgetSandbox(id: SandboxId): void {
    const gone = this.ofSandbox(id);
    for (const { record } of gone) this.#held.delete(record.id);
    this.#bySandbox.delete(id);
    this.#version += 1;
    for (const entry of gone) this.#tell(entry, undefined);
  }
}
