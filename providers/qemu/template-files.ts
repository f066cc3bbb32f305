/**
 * A template on disk: memory, device state, the disk as it was when it was frozen, an empty layer to copy for each clone,
 * and template.json, written last. A template whose files have changed since is not used: clones run from them.
 */
import { readdir, readFile, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, hasErrno } from '../../src/base/errors.ts';
import { writeFileAtomic } from '../../src/base/files.ts';

export const TEMPLATE_FILES = {
  memory: 'memory',
  state: 'state',
  scratch: 'scratch.qcow2',
  overlay: 'overlay.qcow2',
} as const;
const RECORD = 'template.json';

const recordSchema = z.object({
  version: z.literal(1),
  /** Digest of everything but the class that a clone must have in common with it. */
  inputs: z.string(),
  class: z.object({ vcpus: z.int().min(1), memoryMiB: z.int().min(1), diskMiB: z.int().min(0) }),
  /** Speed of the counter that the frozen kernel reads, under emulation: the host's own. */
  tscKhz: z.number().optional(),
  /** Milliseconds since the epoch. */
  builtAt: z.number(),
  buildMs: z.number(),
  /** Size, inode and times of each file when it was complete. */
  stamps: z.record(z.string(), z.string()),
});
export type TemplateRecord = Readonly<z.output<typeof recordSchema>>;

export interface Template {
  readonly id: string;
  readonly dir: string;
  readonly record: TemplateRecord;
  /** When a machine was last made of it, or it was; milliseconds since the epoch. */
  readonly lastUse: number;
  readonly files: Readonly<Record<keyof typeof TEMPLATE_FILES, string>>;
}

const ID = /^[0-9a-f]{12}$/;

export function isTemplateId(text: string): boolean {
  return ID.test(text);
}

export async function listTemplates(root: string): Promise<readonly string[]> {
  return (await readdir(root)).filter(isTemplateId);
}

/** The template in `dir`, a text that says why it cannot be used, or undefined when there is none. */
export async function readTemplate(root: string, id: string): Promise<Template | string | undefined> {
  const dir = join(root, id);
  let text: string;
  try {
    text = await readFile(join(dir, RECORD), 'utf8');
  } catch (error) {
    return hasErrno(error, 'ENOENT') ? undefined : errorMessage(error);
  }
  try {
    const record = recordSchema.parse(JSON.parse(text));
    const now = await stamps(dir);
    const changed = Object.keys(TEMPLATE_FILES).filter((name) => now[name] !== record.stamps[name]);
    if (changed.length > 0) return `its files have changed since it was frozen: ${changed.join(', ')}`;
    const { memory, state, scratch, overlay } = TEMPLATE_FILES;
    const at = (name: string): string => join(dir, name);
    return {
      id,
      dir,
      record,
      lastUse: (await stat(join(dir, RECORD))).mtimeMs,
      files: { memory: at(memory), state: at(state), scratch: at(scratch), overlay: at(overlay) },
    };
  } catch (error) {
    return errorMessage(error);
  }
}

/** Notes that it is used now, in a way that outlives the daemon. Nothing when it is gone. */
export async function touchTemplate(root: string, id: string, now: number): Promise<void> {
  try {
    await utimes(join(root, id, RECORD), now / 1000, now / 1000);
  } catch (error) {
    if (!hasErrno(error, 'ENOENT')) throw error;
  }
}

/** Completes the template in `dir`. */
export async function writeTemplate(dir: string, record: Omit<TemplateRecord, 'version' | 'stamps'>): Promise<void> {
  const complete: TemplateRecord = { version: 1, ...record, stamps: await stamps(dir) };
  await writeFileAtomic(join(dir, RECORD), `${JSON.stringify(complete, undefined, 1)}\n`, 0o600);
}

async function stamps(dir: string): Promise<Record<string, string>> {
  const entries = Object.entries(TEMPLATE_FILES).map(async ([name, file]) => {
    const { ino, size, mtimeMs, ctimeMs } = await stat(join(dir, file));
    return [name, `${ino} ${size} ${mtimeMs} ${ctimeMs}`] as const;
  });
  return Object.fromEntries(await Promise.all(entries));
}
