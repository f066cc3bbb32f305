/**
 * The journal: what is wanted and what has been done, in one SQLite file that survives `kill -9` and power cuts.
 * A row is a JSON record and, beside it, the CRI request it came from as protobuf bytes (which may hold secrets: 0600).
 * Every write is durable when the call returns (WAL with synchronous=FULL).
 */
import { chmodSync } from 'node:fs';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { errorMessage, InfraletError } from '../base/errors.ts';

/** Raised when a table or a record changes in a way that old readers would misread. */
const SCHEMA_VERSION = 1;

const TABLES = `
CREATE TABLE IF NOT EXISTS sandboxes (
  id TEXT PRIMARY KEY, record TEXT NOT NULL, request BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS containers (
  id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, record TEXT NOT NULL, request BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS containers_by_sandbox ON containers (sandbox_id);
CREATE TABLE IF NOT EXISTS logs (
  id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL, position TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tokens (hash TEXT PRIMARY KEY, used_at INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS steps (
  seq INTEGER PRIMARY KEY, sandbox_id TEXT NOT NULL, at INTEGER NOT NULL,
  step TEXT NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS steps_by_sandbox ON steps (sandbox_id, seq);
CREATE TABLE IF NOT EXISTS ended (
  id TEXT PRIMARY KEY, at INTEGER NOT NULL, failed INTEGER NOT NULL, record TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ended_by_time ON ended (failed, at);
`;

export interface Row {
  readonly id: string;
  readonly record: unknown;
  readonly request: Uint8Array;
}

/** `intent` is written before a step touches the outside, `done` or `failed` after; a `note` tells of something on the way. */
const STEP_OUTCOMES = ['intent', 'done', 'failed', 'note'] as const;
export type StepOutcome = (typeof STEP_OUTCOMES)[number];

export interface StepEntry {
  readonly at: number;
  readonly step: string;
  readonly outcome: StepOutcome;
  readonly detail: string;
}

/** A sandbox that was removed, as it was then. */
export interface EndedRow {
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly record: unknown;
}

/** What stays of a sandbox that is removed: its last record and its steps, until `keep` newer ones of its kind are gone, too. */
export interface Keepsake {
  readonly at: number;
  readonly record: unknown;
  /** Kinds do not push each other out: a failure is still known after a thousand pods that went well. */
  readonly failed: boolean;
  readonly keep: number;
}

/** Steps kept per sandbox; a sandbox that retries for days must not fill the disk. */
const MAX_STEPS = 200;

type Table = 'sandboxes' | 'containers';

export class Journal implements Disposable {
  readonly #db: DatabaseSync;
  readonly #putSandbox: StatementSync;
  readonly #replaceSandbox: StatementSync;
  readonly #putContainer: StatementSync;
  readonly #putLog: StatementSync;
  readonly #addStep: StatementSync;
  readonly #trimSteps: StatementSync;

  /** @param path file, or ":memory:" for simulations that need no durability. */
  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    try {
      if (path !== ':memory:') chmodSync(path, 0o600);
      // The lock lasts as long as the process, however it ends: two daemons on one journal would fight over machines.
      this.#db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
      this.#checkVersion(path);
      this.#db.exec(TABLES);
    } catch (error) {
      this.#db.close();
      if (!errorMessage(error).includes('locked')) throw error;
      throw new InfraletError('FAILED_PRECONDITION', `the journal ${path} is in use by another Infralet daemon`, {
        cause: error,
        hint: 'stop the other daemon, or give this one a stateDir of its own',
      });
    }
    this.#putSandbox = this.#db.prepare(
      `INSERT INTO sandboxes (id, record, request) VALUES (:id, :record, :request)
       ON CONFLICT (id) DO UPDATE SET record = excluded.record`,
    );
    this.#replaceSandbox = this.#db.prepare('UPDATE sandboxes SET record = :record, request = :request WHERE id = :id');
    this.#putContainer = this.#db.prepare(
      `INSERT INTO containers (id, sandbox_id, record, request) VALUES (:id, :sandboxId, :record, :request)
       ON CONFLICT (id) DO UPDATE SET record = excluded.record`,
    );
    this.#putLog = this.#db.prepare(
      `INSERT INTO logs (id, sandbox_id, position) VALUES (:id, :sandboxId, :position)
       ON CONFLICT (id) DO UPDATE SET position = excluded.position`,
    );
    this.#addStep = this.#db.prepare(
      'INSERT INTO steps (sandbox_id, at, step, outcome, detail) VALUES (?, ?, ?, ?, ?)',
    );
    this.#trimSteps = this.#db.prepare(
      `DELETE FROM steps WHERE sandbox_id = :id AND seq <=
         (SELECT seq FROM steps WHERE sandbox_id = :id ORDER BY seq DESC LIMIT 1 OFFSET ${MAX_STEPS})`,
    );
  }

  #checkVersion(path: string): void {
    const found = Number(this.#db.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0);
    if (found > SCHEMA_VERSION) {
      throw new InfraletError('FAILED_PRECONDITION', `the journal ${path} was written by a newer Infralet`, {
        hint: 'install that version again, or point stateDir somewhere else',
      });
    }
    // Nothing is written without need: the daemon must start, and its pods end, when the disk is full.
    if (found !== SCHEMA_VERSION) this.#db.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`);
  }

  putSandbox(id: string, record: unknown, request: Uint8Array): void {
    this.#putSandbox.run({ id, record: JSON.stringify(record), request });
  }

  /** A sandbox that gets its pod: record and request change together, or not at all. */
  replaceSandbox(id: string, record: unknown, request: Uint8Array): void {
    this.#replaceSandbox.run({ id, record: JSON.stringify(record), request });
  }

  putContainer(id: string, sandboxId: string, record: unknown, request: Uint8Array): void {
    this.#putContainer.run({ id, sandboxId, record: JSON.stringify(record), request });
  }

  /** How far a container's log has come. Apart from its record, since it changes while the log grows. */
  putLog(id: string, sandboxId: string, position: unknown): void {
    this.#putLog.run({ id, sandboxId, position: JSON.stringify(position) });
  }

  /** Undefined when there is none, or none that is JSON. */
  log(id: string): unknown {
    const row = this.#db.prepare('SELECT position FROM logs WHERE id = ?').get(id);
    try {
      return row && JSON.parse(String(row['position']));
    } catch {
      return undefined;
    }
  }

  /** All rows of a table; rows that cannot be read are reported to `onBad` and left out, never deleted. */
  all(table: Table, onBad: (id: string, error: unknown) => void): readonly Row[] {
    const rows: Row[] = [];
    for (const row of this.#db.prepare(`SELECT id, record, request FROM ${table}`).iterate()) {
      const id = String(row['id']);
      try {
        const request = row['request'];
        if (!(request instanceof Uint8Array)) throw new InfraletError('DATA_LOSS', 'the request is not bytes');
        rows.push({ id, record: JSON.parse(String(row['record'])), request });
      } catch (error) {
        onBad(id, error);
      }
    }
    return rows;
  }

  deleteContainer(id: string): void {
    this.#db.prepare('DELETE FROM containers WHERE id = ?').run(id);
    this.#db.prepare('DELETE FROM logs WHERE id = ?').run(id);
  }

  /** Forgets a sandbox with its containers and steps, but for what is to be kept of it, in one transaction. */
  deleteSandbox(id: string, keepsake?: Keepsake): void {
    this.#db.exec('BEGIN IMMEDIATE');
    try {
      this.#db.prepare('DELETE FROM containers WHERE sandbox_id = ?').run(id);
      this.#db.prepare('DELETE FROM logs WHERE sandbox_id = ?').run(id);
      this.#db.prepare('DELETE FROM sandboxes WHERE id = ?').run(id);
      if (keepsake && keepsake.keep > 0) this.#keep(id, keepsake);
      else this.#db.prepare('DELETE FROM steps WHERE sandbox_id = ?').run(id);
      this.#db.exec('COMMIT');
    } catch (error) {
      this.#db.exec('ROLLBACK');
      throw error;
    }
  }

  #keep(id: string, { at, record, failed, keep }: Keepsake): void {
    const kind = failed ? 1 : 0;
    this.#db
      .prepare('INSERT OR REPLACE INTO ended (id, at, failed, record) VALUES (?, ?, ?, ?)')
      .run(id, at, kind, JSON.stringify(record));
    const old = this.#db
      .prepare('SELECT id FROM ended WHERE failed = ? ORDER BY at DESC, rowid DESC LIMIT -1 OFFSET ?')
      .all(kind, keep);
    for (const row of old) {
      this.#db.prepare('DELETE FROM steps WHERE sandbox_id = ?').run(String(row['id']));
      this.#db.prepare('DELETE FROM ended WHERE id = ?').run(String(row['id']));
    }
  }

  /** What is kept of removed sandboxes, the newest first; rows that cannot be read are left out. */
  ended(): readonly EndedRow[] {
    return this.#db
      .prepare('SELECT id, at, record FROM ended ORDER BY at DESC, rowid DESC')
      .all()
      .flatMap((row) => {
        try {
          return [{ id: String(row['id']), at: Number(row['at']), record: JSON.parse(String(row['record'])) }];
        } catch {
          return [];
        }
      });
  }

  addStep(sandboxId: string, at: number, step: string, outcome: StepOutcome, detail: string): void {
    this.#addStep.run(sandboxId, at, step, outcome, detail);
    this.#trimSteps.run({ id: sandboxId });
  }

  steps(sandboxId: string): readonly StepEntry[] {
    return this.#db
      .prepare('SELECT at, step, outcome, detail FROM steps WHERE sandbox_id = ? ORDER BY seq')
      .all(sandboxId)
      .map((row) => ({
        at: Number(row['at']),
        step: String(row['step']),
        outcome: STEP_OUTCOMES.find((known) => known === row['outcome']) ?? 'failed',
        detail: String(row['detail']),
      }));
  }

  /** Marks an enrolment token (by its hash) as used; false when it was used before. */
  consumeToken(hash: string, now: number): boolean {
    return this.#db.prepare('INSERT OR IGNORE INTO tokens (hash, used_at) VALUES (?, ?)').run(hash, now).changes === 1;
  }

  /** Drops marks of tokens that no machine can present any more. */
  forgetTokensBefore(time: number): void {
    this.#db.prepare('DELETE FROM tokens WHERE used_at < ?').run(time);
  }

  [Symbol.dispose](): void {
    if (this.#db.isOpen) this.#db.close();
  }
}
