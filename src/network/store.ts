/**
 * One marker per sandbox on disk: written before CNI is called and after, so that a crash at any point leaves a note of
 * what may exist. It holds the configuration and the result of the ADD, which CHECK and DEL must get back unchanged even
 * if the node's configuration has become another since.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';
import { ensureDirectory, syncDirectory, writeFileAtomic } from '../base/files.ts';
import { parseSandboxId, type SandboxId } from '../base/ids.ts';
import { conflistSchema } from './conflist.ts';
import { cniResultSchema } from './result.ts';

const linkSchema = z.object({
  vni: z.int(),
  local: z.string(),
  remote: z.string(),
  port: z.int(),
  mtu: z.int(),
});

const markerSchema = z.object({
  version: z.literal(1),
  netns: z.string(),
  conflist: conflistSchema,
  args: z.string(),
  capabilities: z.record(z.string(), z.unknown()),
  /** The tunnel to the machine, noted before it is made: its number stays the pod's. */
  link: linkSchema.optional(),
  state: z.discriminatedUnion('kind', [
    z.object({ kind: z.literal('adding') }),
    z.object({ kind: z.literal('added'), result: cniResultSchema }),
    z.object({
      kind: z.literal('deleting'),
      result: cniResultSchema.optional(),
      /** How many plugins of the chain have not been through DEL yet. */
      remaining: z.int().min(0),
    }),
  ]),
});

export type NetworkMarker = Readonly<z.output<typeof markerSchema>>;

export class MarkerStore {
  readonly #dir: string;

  constructor(dir: string) {
    this.#dir = dir;
  }

  async write(id: SandboxId, marker: NetworkMarker): Promise<void> {
    await ensureDirectory(this.#dir, 0o700);
    await writeFileAtomic(this.#path(id), `${JSON.stringify(marker)}\n`, 0o600);
  }

  /** Undefined when nothing is noted. Throws DATA_LOSS when the note cannot be read. */
  async read(id: SandboxId): Promise<NetworkMarker | undefined> {
    try {
      return markerSchema.parse(JSON.parse(await readFile(this.#path(id), 'utf8')));
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return undefined;
      const problem = error instanceof z.ZodError ? z.prettifyError(error) : errorMessage(error);
      throw new InfraletError('DATA_LOSS', `the network record ${this.#path(id)} is unreadable: ${problem}`, {
        hint: 'remove the file; addresses and port rules of this sandbox may have to be released by hand',
        context: { sandboxId: id },
      });
    }
  }

  /** Also what a daemon that was killed was about to write. */
  async remove(id: SandboxId): Promise<void> {
    const files = (await this.#files()).filter((file) => file.id === id);
    for (const { name } of files) await rm(join(this.#dir, name), { force: true });
    if (files.length > 0) await syncDirectory(this.#dir);
  }

  /** Sandboxes with a note, readable or not, or with the beginning of one. */
  async list(): Promise<readonly SandboxId[]> {
    return [...new Set((await this.#files()).map(({ id }) => id))];
  }

  async #files(): Promise<readonly { readonly id: SandboxId; readonly name: string }[]> {
    try {
      const names = await readdir(this.#dir);
      return names.flatMap((name) => {
        const id = /^([0-9a-f]{32})\.json(\.[0-9a-f]+\.tmp)?$/.exec(name)?.[1];
        return id === undefined ? [] : [{ id: parseSandboxId(id), name }];
      });
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return [];
      throw error;
    }
  }

  #path(id: SandboxId): string {
    return join(this.#dir, `${id}.json`);
  }
}
