/**
 * A second copy of what the journal says of each ready pod, one file per sandbox and container: what a new journal is made
 * of when the old one is lost. Copies are replaced whole and not synced to the disk: a power cut takes the machine's network
 * along, so that no pod outlives it. They hold the kubelet's requests, which may hold secrets: 0600.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { hasErrno } from '../base/errors.ts';
import { parseSandboxId, type SandboxId } from '../base/ids.ts';
import type { Row } from './journal.ts';

export interface PodCopy {
  readonly id: SandboxId;
  readonly sandbox: Row;
  readonly containers: readonly Row[];
}

const SANDBOX = 'sandbox';
const copySchema = z.object({ record: z.unknown(), request: z.base64() });

export class PodFiles {
  readonly #directory: string;

  /** @param directory made when it is needed. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  putSandbox(id: SandboxId, record: unknown, request: Uint8Array): void {
    mkdirSync(join(this.#directory, id), { recursive: true, mode: 0o700 });
    this.#write(id, SANDBOX, record, request);
  }

  /** Of a sandbox that has a copy. */
  putContainer(sandboxId: SandboxId, id: string, record: unknown, request: Uint8Array): void {
    this.#write(sandboxId, id, record, request);
  }

  dropContainer(sandboxId: SandboxId, id: string): void {
    rmSync(this.#path(sandboxId, id), { force: true });
  }

  dropSandbox(id: SandboxId): void {
    rmSync(join(this.#directory, id), { recursive: true, force: true });
  }

  ids(): readonly SandboxId[] {
    return names(this.#directory).flatMap((name) => (/^[0-9a-f]{32}$/.test(name) ? [parseSandboxId(name)] : []));
  }

  /** Throws what reading or parsing throws. */
  read(id: SandboxId): PodCopy {
    const containers = names(join(this.#directory, id)).flatMap((file) => {
      const name = /^([0-9a-f]+)\.json$/.exec(file)?.[1];
      return name === undefined ? [] : [this.#read(id, name)];
    });
    return { id, sandbox: this.#read(id, SANDBOX), containers };
  }

  #read(sandboxId: SandboxId, name: string): Row {
    const { record, request } = copySchema.parse(JSON.parse(readFileSync(this.#path(sandboxId, name), 'utf8')));
    return { id: name === SANDBOX ? sandboxId : name, record, request: Buffer.from(request, 'base64') };
  }

  #write(sandboxId: SandboxId, name: string, record: unknown, request: Uint8Array): void {
    const path = this.#path(sandboxId, name);
    const text = JSON.stringify({ record, request: Buffer.from(request).toString('base64') });
    writeFileSync(`${path}.tmp`, text, { mode: 0o600 });
    renameSync(`${path}.tmp`, path);
  }

  #path(sandboxId: SandboxId, name: string): string {
    return join(this.#directory, sandboxId, `${name}.json`);
  }
}

function names(directory: string): readonly string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}
