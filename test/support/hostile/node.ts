/** The parent's side of a node in a child process: it runs the machines' agents and asks the node what it sees. */
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Lies, LyingAgent } from './agent.ts';

export interface ToNode {
  readonly call: number;
  readonly command: 'run' | 'contain' | 'state' | 'stats' | 'why' | 'remove' | 'memory';
  readonly argument: string;
}

export type FromNode =
  | { readonly kind: 'up' }
  | { readonly kind: 'launched'; readonly machine: string; readonly userData: string }
  | { readonly kind: 'ended'; readonly machine: string }
  | { readonly kind: 'answer'; readonly call: number; readonly value?: unknown; readonly error?: string };

export class NodeUnderAttack implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #directory: string;
  readonly #answers = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #agents = new Map<string, LyingAgent>();
  #calls = 0;
  /** What the next machines' agents do. */
  lies: Lies = () => ({});
  /** The newest one. */
  agent: LyingAgent | undefined;

  private constructor(child: ChildProcess, directory: string) {
    this.#child = child;
    this.#directory = directory;
    child.on('message', (message: FromNode) => void this.#hear(message));
    child.once('exit', (code, by) => {
      for (const { reject } of this.#answers.values()) reject(new Error(`the node has ended (${code ?? by})`));
    });
  }

  static async start(): Promise<NodeUnderAttack> {
    const directory = await mkdtemp(join(tmpdir(), 'infralet-hostile-'));
    const child = fork(new URL('node-child.ts', import.meta.url), [directory], { serialization: 'advanced' });
    const node = new NodeUnderAttack(child, directory);
    await once(child, 'message');
    return node;
  }

  async #hear(message: FromNode): Promise<void> {
    if (message.kind === 'launched') {
      const agent = await LyingAgent.start(message.userData, this.lies);
      this.#agents.set(message.machine, agent);
      this.agent = agent;
      this.#child.send({ command: 'agent', machine: message.machine, port: agent.port });
    } else if (message.kind === 'ended') {
      await this.#agents.get(message.machine)?.[Symbol.asyncDispose]();
      this.#agents.delete(message.machine);
    } else if (message.kind === 'answer') {
      const waits = this.#answers.get(message.call);
      this.#answers.delete(message.call);
      if (message.error === undefined) waits?.resolve(message.value);
      else waits?.reject(new Error(message.error));
    }
  }

  async ask<T>(command: ToNode['command'], argument = ''): Promise<T> {
    this.#calls += 1;
    const answer = Promise.withResolvers<unknown>();
    this.#answers.set(this.#calls, answer);
    this.#child.send({ call: this.#calls, command, argument } satisfies ToNode);
    return (await answer.promise) as T;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents.values()) await agent[Symbol.asyncDispose]();
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await gone;
    await rm(this.#directory, { recursive: true, force: true });
  }
}
