/**
 * The programs of the shares' servers, on a file system of their own: a server that was taken over could open any file of
 * the file system that a descriptor of its leads to, so that none leads to the node's. One copy in memory for all servers.
 */
import { cp, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../../base/errors.ts';
import { exists } from '../../base/files.ts';
import { KeyedLock } from '../../base/keyed-lock.ts';
import { run } from '../../base/process.ts';
import { mountOf, readMountTable } from '../mount-table.ts';

const TOOL_MS = 30_000;
/** The programs have 24 MB. */
const SIZE = '64m';

export class SharePrograms {
  readonly #from: string;
  readonly #path: string;
  readonly #lock = new KeyedLock<'programs'>();

  /** `from`: as the guest image brings them; `path`: where the copy is mounted. */
  constructor(from: string, path: string) {
    this.#from = from;
    this.#path = path;
  }

  /** Resolves with the directory that has the programs in `usr`. */
  async ready(signal: AbortSignal): Promise<string> {
    using _one = await this.#lock.acquire('programs', signal);
    const complete = join(this.#path, 'complete');
    if (await exists(complete)) return this.#path;
    if (!(await exists(join(this.#from, 'usr')))) {
      throw new InfraletError('FAILED_PRECONDITION', `the guest image has no file server (${this.#from})`, {
        hint: 'build the image anew: infralet image build',
      });
    }
    await this.#remove(signal);
    await mkdir(this.#path, { recursive: true, mode: 0o700 });
    const options = `mode=0700,size=${SIZE},nosuid,nodev`;
    await run('mount', ['-t', 'tmpfs', '-o', options, 'infralet-share', this.#path], { signal, timeoutMs: TOOL_MS });
    await cp(this.#from, this.#path, { recursive: true, verbatimSymlinks: true });
    await mkdir(complete);
    return this.#path;
  }

  /** When no server is left. */
  async remove(signal: AbortSignal): Promise<void> {
    using _one = await this.#lock.acquire('programs', signal);
    await this.#remove(signal);
  }

  async #remove(signal: AbortSignal): Promise<void> {
    while (mountOf(await readMountTable(), this.#path)?.point === this.#path) {
      await run('umount', ['--lazy', this.#path], { signal, timeoutMs: TOOL_MS });
    }
  }
}
