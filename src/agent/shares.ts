/**
 * The machine's ends of shared directories: a loopback port for each, whose connections the daemon is told of. The ports
 * are kept over a restart of the agent, since the kernel's NFS client comes back to the one that it knows.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { IncomingQueue } from './incoming.ts';
import type { AgentOptions } from './options.ts';

/** Nothing outside of the machine reaches it, and no pod has the machine's own loopback. */
const HOST = '127.0.0.1';
const NAME = /^[0-9a-f]{32}$/;

export class Shares {
  readonly #file: string;
  readonly #incoming: IncomingQueue;
  readonly #ports = new Map<string, number>();

  constructor({ stateDir }: Pick<AgentOptions, 'stateDir'>, incoming: IncomingQueue) {
    this.#file = join(stateDir, 'shares');
    this.#incoming = incoming;
  }

  /** Listens again where an earlier agent of this machine did. */
  async resume(): Promise<void> {
    let text: string;
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch (error) {
      if (hasErrno(error, 'ENOENT')) return;
      throw error;
    }
    for (const line of text.split('\n')) {
      const [name = '', port] = line.split(' ');
      if (NAME.test(name)) this.#ports.set(name, await this.#incoming.listen(`share/${name}`, HOST, Number(port)));
    }
  }

  /** The loopback port behind which the share is. */
  async port(name: string): Promise<number> {
    const known = this.#ports.get(name);
    if (known !== undefined) return known;
    if (!NAME.test(name))
      throw new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(name.slice(0, 80))} is no name of a share`);
    const port = await this.#incoming.listen(`share/${name}`, HOST, 0);
    if (port === 0) throw new InfraletError('RESOURCE_EXHAUSTED', `the machine has no port left for the share ${name}`);
    this.#ports.set(name, port);
    mkdirSync(join(this.#file, '..'), { recursive: true, mode: 0o700 });
    writeFileSync(`${this.#file}.new`, [...this.#ports].map(([each, number]) => `${each} ${number}\n`).join(''));
    renameSync(`${this.#file}.new`, this.#file);
    return port;
  }
}
