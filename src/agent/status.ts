/** `Status`: what the agent knows about itself and its machine. Nothing here fails; what is unknown is empty. */
import { readFileSync } from 'node:fs';
import { release, uptime } from 'node:os';
import type { StatusResponse } from '../gen/infralet/agent/v1/StatusResponse.ts';
import type { Containerd } from './containerd.ts';
import { type AgentOptions, LIMITS } from './options.ts';
import { VERSION } from './proto.ts';

const MAX_PHASES = 64;

export class Phases {
  readonly #own = new Map<string, number>();
  #cloned = false;

  get cloned(): boolean {
    return this.#cloned;
  }

  /** What came before was the template's boot, which says nothing about this machine. */
  restart(): void {
    this.#own.clear();
    this.#cloned = true;
  }

  /** Notes a phase of the agent at its first call, in milliseconds since the kernel started. */
  mark(name: string): void {
    if (!this.#own.has(name)) this.#own.set(name, Math.round(uptime() * 1000));
  }

  /** Those of init, read anew, and the agent's own. */
  all(file: string): Record<string, number> {
    const phases: Record<string, number> = {};
    for (const line of (this.#cloned ? '' : text(file)).split('\n').slice(0, MAX_PHASES)) {
      const [, name, ms] = /^([\w.-]{1,64}) (\d{1,12})$/.exec(line.trim()) ?? [];
      if (name !== undefined) phases[name] = Number(ms);
    }
    return { ...phases, ...Object.fromEntries(this.#own) };
  }
}

export type Facts = Omit<StatusResponse, 'containerdReady' | 'agentResidentBytes'>;

/** All that can be told without asking anybody. */
export function facts(options: AgentOptions, phases: Phases): Facts {
  return {
    imageDigest: text(options.imageDigestFile).trim(),
    clockNanos: (BigInt(Date.now()) * 1_000_000n).toString(),
    uptimeMs: Math.round(uptime() * 1000),
    phases: phases.all(options.phasesFile),
    agentVersion: VERSION,
    bootId: text('/proc/sys/kernel/random/boot_id').trim(),
    kernel: release(),
  };
}

export async function status(options: AgentOptions, containerd: Containerd, phases: Phases): Promise<StatusResponse> {
  const ready = await containerd.ready(LIMITS.statusProbeMs).then(
    () => true,
    () => false,
  );
  return {
    ...facts(options, phases),
    containerdReady: ready,
    agentResidentBytes: process.memoryUsage.rss(),
  };
}

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8').slice(0, 16_384);
  } catch {
    return '';
  }
}
