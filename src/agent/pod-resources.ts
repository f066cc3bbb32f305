/** What all containers of the pod may use together: the cgroup that theirs are in. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import type { PodResources__Output } from '../gen/infralet/agent/v1/PodResources.ts';
import { GUEST_CGROUP_PARENT } from '../rpc/agent-protocol.ts';
import type { AgentOptions } from './options.ts';

const DEFAULT_PERIOD = 100_000;
/** Bounds of the two scales, and how crun and others convert the one into the other. */
const SHARES = { min: 2, max: 262_144 } as const;
const WEIGHTS = { min: 1, max: 10_000 } as const;

export function limitPod(resources: PodResources__Output, { cgroupDir }: Pick<AgentOptions, 'cgroupDir'>): void {
  const group = join(cgroupDir, GUEST_CGROUP_PARENT);
  mkdirSync(group, { recursive: true });
  for (const [file, value] of podLimits(resources)) writeFileSync(join(group, file), value);
}

/** Files of cgroup v2 and what to write there; fields that are 0 name none. */
export function podLimits(resources: PodResources__Output): ReadonlyMap<string, string> {
  const memory = whole('memory_bytes', resources.memoryBytes);
  const quota = whole('cpu_quota', resources.cpuQuota);
  const period = whole('cpu_period', resources.cpuPeriod);
  const shares = whole('cpu_shares', resources.cpuShares);
  const limits = new Map<string, string>();
  if (memory !== 0) limits.set('memory.max', memory < 0 ? 'max' : String(memory));
  if (quota !== 0) limits.set('cpu.max', `${quota < 0 ? 'max' : quota} ${period > 0 ? period : DEFAULT_PERIOD}`);
  if (shares > 0) limits.set('cpu.weight', String(weight(shares)));
  return limits;
}

function weight(shares: number): number {
  const bounded = Math.min(Math.max(shares, SHARES.min), SHARES.max);
  return Math.floor(WEIGHTS.min + ((bounded - SHARES.min) * (WEIGHTS.max - WEIGHTS.min)) / (SHARES.max - SHARES.min));
}

function whole(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= -1) return value;
  throw new InfraletError('INVALID_ARGUMENT', `${name} must be -1 or more, not ${text}`);
}
