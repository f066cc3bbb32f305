/**
 * What a cloud provider must remember over a crash: which calls were made for which launches, and which machine became whose.
 * A call is written before it is made and is repeated with its own token until its outcome is known.
 */
import { chmodSync } from 'node:fs';
import { DatabaseSync, type SQLOutputValue } from 'node:sqlite';
import { z } from 'zod';
import type { LaunchCall } from './driver.ts';
import { ARCHITECTURES, MARKETS } from './offers.ts';

const TABLES = `
CREATE TABLE IF NOT EXISTS calls (
  token TEXT PRIMARY KEY, call TEXT NOT NULL, seed TEXT NOT NULL, at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS launches (
  token TEXT PRIMARY KEY, tags TEXT NOT NULL, shape TEXT NOT NULL, tries INTEGER NOT NULL,
  call_token TEXT, instance_id TEXT UNIQUE
) STRICT;
CREATE INDEX IF NOT EXISTS launches_by_call ON launches (call_token);
`;

const tags = z.record(z.string(), z.string());
const shape = z.object({ cpuMillis: z.number(), memoryBytes: z.number(), diskBytes: z.number() });
const offer = z.object({
  type: z.object({
    name: z.string(),
    architecture: z.enum(ARCHITECTURES),
    cpuMillis: z.number(),
    memoryBytes: z.number(),
    gpus: z
      .object({ model: z.string(), count: z.number() })
      .optional()
      .transform((gpus) => gpus),
  }),
  zone: z.string(),
  market: z.enum(MARKETS),
  pricePerHour: z.number(),
  estimated: z.boolean(),
});
const launchCall = z.object({
  token: z.string(),
  offer: offer.transform((value) => ({ ...value, type: { ...value.type, gpus: value.type.gpus } })),
  count: z.number(),
  tags,
  userData: z.string(),
  diskBytes: z.number(),
});

/** A launch that was asked for, and what came of it so far. */
export interface LaunchRow {
  readonly token: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly shape: { readonly cpuMillis: number; readonly memoryBytes: number; readonly diskBytes: number };
  /** Calls that were begun for it; part of the next call's token. */
  readonly tries: number;
  /** The call that it waits for or that made its machine. */
  readonly callToken: string | undefined;
  readonly instanceId: string | undefined;
}

export interface CallRow {
  readonly call: LaunchCall;
  /** Secret of a call for several machines (see enrolment in docs/architecture.md); empty for one machine. */
  readonly seed: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** Read from memory, written through to the file; one process at a time has it open. */
export class LaunchStore implements Disposable {
  readonly #db: DatabaseSync;
  readonly #launches = new Map<string, LaunchRow>();
  readonly #owners = new Map<string, string>();
  readonly #calls = new Map<string, CallRow>();
  /** Launches without a machine, by the call that they are part of. */
  readonly #waiting = new Map<string, Set<string>>();

  /** @param path file, or ":memory:" for simulations that need no durability. */
  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    // User data holds one-time tokens.
    if (path !== ':memory:') chmodSync(path, 0o600);
    this.#db.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    this.#db.exec(TABLES);
    for (const row of this.#db.prepare('SELECT * FROM calls').iterate()) {
      const entry = toCall(row);
      this.#calls.set(entry.call.token, entry);
    }
    for (const row of this.#db.prepare('SELECT * FROM launches').iterate()) this.#show(toLaunch(row));
  }

  launch(token: string): LaunchRow | undefined {
    return this.#launches.get(token);
  }

  /** Machines of calls that were begun at that time or later, with their calls. */
  madeSince(time: number): readonly { readonly instanceId: string; readonly row: CallRow }[] {
    return [...this.#launches.values()].flatMap(({ instanceId, callToken }) => {
      const row = callToken === undefined ? undefined : this.#calls.get(callToken);
      return instanceId !== undefined && row && row.at >= time ? [{ instanceId, row }] : [];
    });
  }

  /** The launch that has this machine. */
  owner(instanceId: string): LaunchRow | undefined {
    const token = this.#owners.get(instanceId);
    return token === undefined ? undefined : this.#launches.get(token);
  }

  call(token: string): CallRow | undefined {
    return this.#calls.get(token);
  }

  /** Calls whose machines are not known yet. */
  openCalls(): readonly string[] {
    return [...this.#waiting.keys()];
  }

  /** Launches that wait for this call, in the order in which machines are dealt out. */
  waiting(callToken: string): readonly LaunchRow[] {
    return [...(this.#waiting.get(callToken) ?? [])].sort().flatMap((token) => this.#launches.get(token) ?? []);
  }

  add({ token, tags, shape }: Pick<LaunchRow, 'token' | 'tags' | 'shape'>): void {
    if (this.#launches.has(token)) return;
    this.#db
      .prepare('INSERT INTO launches (token, tags, shape, tries) VALUES (?, ?, ?, 0)')
      .run(token, JSON.stringify(tags), JSON.stringify(shape));
    this.#show({ token, tags, shape, tries: 0, callToken: undefined, instanceId: undefined });
  }

  /** Writes a call and whose it is, before it is made. */
  begin(call: LaunchCall, seed: string, launches: readonly string[], now: number): void {
    this.#together(() => {
      this.#db
        .prepare('INSERT INTO calls (token, call, seed, at) VALUES (?, ?, ?, ?)')
        .run(call.token, JSON.stringify(call), seed, now);
      const join = this.#db.prepare('UPDATE launches SET call_token = ?, tries = tries + 1 WHERE token = ?');
      for (const token of launches) join.run(call.token, token);
    });
    this.#calls.set(call.token, { call, seed, at: now });
    this.#change(launches, (row) => ({ ...row, callToken: call.token, tries: row.tries + 1 }));
  }

  /** Deals machines out to launches; both sides of a pair are taken from then on. */
  assign(pairs: readonly { readonly token: string; readonly instanceId: string }[]): void {
    this.#together(() => {
      const set = this.#db.prepare('UPDATE launches SET instance_id = ? WHERE token = ?');
      for (const { token, instanceId } of pairs) set.run(instanceId, token);
    });
    for (const { token, instanceId } of pairs) this.#change([token], (row) => ({ ...row, instanceId }));
  }

  /** The call's outcome is known, and there is no machine for these launches: they may begin another. */
  release(launches: readonly string[]): void {
    this.#together(() => {
      const leave = this.#db.prepare('UPDATE launches SET call_token = NULL WHERE token = ?');
      for (const token of launches) leave.run(token);
      this.#dropCalls();
    });
    this.#change(launches, (row) => ({ ...row, callToken: undefined }));
    this.#hideCalls();
  }

  /** Their machines are gone. */
  forgetInstances(ids: readonly string[]): void {
    this.forget(ids.flatMap((id) => this.#owners.get(id) ?? []));
  }

  forget(launches: readonly string[]): void {
    if (launches.length === 0) return;
    this.#together(() => {
      const drop = this.#db.prepare('DELETE FROM launches WHERE token = ?');
      for (const token of launches) drop.run(token);
      this.#dropCalls();
    });
    for (const token of launches) {
      const row = this.#launches.get(token);
      if (row) this.#hide(row);
    }
    this.#hideCalls();
  }

  #change(launches: readonly string[], next: (row: LaunchRow) => LaunchRow): void {
    for (const token of launches) {
      const row = this.#launches.get(token);
      if (!row) continue;
      this.#hide(row);
      this.#show(next(row));
    }
  }

  #show(row: LaunchRow): void {
    this.#launches.set(row.token, row);
    if (row.instanceId !== undefined) this.#owners.set(row.instanceId, row.token);
    else if (row.callToken !== undefined) {
      const waiting = this.#waiting.get(row.callToken) ?? new Set();
      this.#waiting.set(row.callToken, waiting.add(row.token));
    }
  }

  #hide(row: LaunchRow): void {
    this.#launches.delete(row.token);
    if (row.instanceId !== undefined) this.#owners.delete(row.instanceId);
    if (row.callToken === undefined) return;
    const waiting = this.#waiting.get(row.callToken);
    waiting?.delete(row.token);
    if (waiting?.size === 0) this.#waiting.delete(row.callToken);
  }

  #dropCalls(): void {
    this.#db.exec(
      'DELETE FROM calls WHERE token NOT IN (SELECT call_token FROM launches WHERE call_token IS NOT NULL)',
    );
  }

  #hideCalls(): void {
    const used = new Set([...this.#launches.values()].map(({ callToken }) => callToken));
    for (const token of this.#calls.keys()) if (!used.has(token)) this.#calls.delete(token);
  }

  #together(work: () => void): void {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      work();
      this.#db.exec('COMMIT');
    } catch (error) {
      this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  [Symbol.dispose](): void {
    if (this.#db.isOpen) this.#db.close();
  }
}

type Columns = Readonly<Record<string, SQLOutputValue>>;

function toLaunch(row: Columns): LaunchRow {
  return {
    token: String(row['token']),
    tags: tags.parse(JSON.parse(String(row['tags']))),
    shape: shape.parse(JSON.parse(String(row['shape']))),
    tries: Number(row['tries']),
    callToken: row['call_token'] === null ? undefined : String(row['call_token']),
    instanceId: row['instance_id'] === null ? undefined : String(row['instance_id']),
  };
}

function toCall(row: Columns): CallRow {
  return {
    call: launchCall.parse(JSON.parse(String(row['call']))),
    seed: String(row['seed']),
    at: Number(row['at']),
  };
}
