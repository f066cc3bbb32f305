/** Named network namespaces and the links inside them, through iproute2's JSON. */
import { access } from 'node:fs/promises';
import { z } from 'zod';
import { hasErrno, InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import { run, tryRun } from '../base/process.ts';

/** Where iproute2 keeps names. */
const NETNS_DIR = '/run/netns';
const TIMEOUT_MS = 10_000;

const linksSchema = z.array(z.object({ ifname: z.string(), address: z.string().default(''), mtu: z.number() }));

export interface Link {
  readonly name: string;
  readonly mac: string;
  readonly mtu: number;
}

export function netnsName(id: SandboxId): string {
  return `infralet-${id.slice(0, 12)}`;
}

export function netnsPath(name: string): string {
  return `${NETNS_DIR}/${name}`;
}

export async function netnsExists(name: string): Promise<boolean> {
  try {
    await access(netnsPath(name));
    return true;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

export async function addNetns(name: string, signal: AbortSignal): Promise<void> {
  await ip(['netns', 'add', name], signal);
}

/** Nobody but the pod's own processes uses it: it need not be up before the other interfaces are made. */
export async function loopbackUp(name: string, signal: AbortSignal): Promise<void> {
  await ip(['-n', name, 'link', 'set', 'lo', 'up'], signal);
}

/** Removes the namespace and with it all virtual links inside; succeeds when there is none. */
export async function deleteNetns(name: string, signal: AbortSignal): Promise<void> {
  if (!(await netnsExists(name))) return;
  const result = await tryRun('ip', ['netns', 'del', name], { signal, timeoutMs: TIMEOUT_MS });
  if (result.exitCode !== 0 && (await netnsExists(name))) {
    throw new InfraletError('INTERNAL', `cannot remove the network namespace ${name}: ${result.stderr.trim()}`);
  }
}

/** A link inside a namespace, or in the node's own when `netns` is undefined; undefined when there is none of that name. */
export async function findLink(
  netns: string | undefined,
  device: string,
  signal: AbortSignal,
): Promise<Link | undefined> {
  const where = netns === undefined ? [] : ['-n', netns];
  const args = [...where, '-j', 'link', 'show', 'dev', device];
  const result = await tryRun('ip', args, { signal, timeoutMs: TIMEOUT_MS });
  if (result.exitCode !== 0) {
    if (/does not exist|cannot find device/i.test(result.stderr)) return undefined;
    throw new InfraletError('INTERNAL', `cannot look for ${device}: ${result.stderr.trim()}`);
  }
  const link = linksSchema.parse(JSON.parse(result.stdout))[0];
  return link && { name: link.ifname, mac: link.address, mtu: link.mtu };
}

/** Moves a link from the node's own namespace; false when there is none of that name there. */
export async function moveLink(device: string, netns: string, signal: AbortSignal): Promise<boolean> {
  const args = ['link', 'set', 'dev', device, 'netns', netns];
  const result = await tryRun('ip', args, { signal, timeoutMs: TIMEOUT_MS });
  if (result.exitCode === 0) return true;
  if (/does not exist|cannot find device/i.test(result.stderr)) return false;
  throw new InfraletError('INTERNAL', `cannot move ${device} into ${netns}: ${result.stderr.trim()}`);
}

export async function ip(args: readonly string[], signal: AbortSignal): Promise<string> {
  return await run('ip', args, { signal, timeoutMs: TIMEOUT_MS });
}

/** Several tc commands in one go, inside a namespace. */
export async function tcBatch(netns: string, lines: readonly string[], signal: AbortSignal): Promise<void> {
  const result = await tryTcBatch(netns, lines, signal);
  if (result.exitCode !== 0) throw new InfraletError('INTERNAL', `tc in ${netns} failed: ${result.stderr.trim()}`);
}

/** The same, for those who look at the outcome; what came before the line that failed is done. */
export async function tryTcBatch(
  netns: string,
  lines: readonly string[],
  signal: AbortSignal,
): Promise<{ readonly exitCode: number; readonly stderr: string }> {
  const input = `${lines.join('\n')}\n`;
  return await tryRun('tc', ['-n', netns, '-batch', '-'], { signal, timeoutMs: TIMEOUT_MS, input });
}

/** Output of a tc query; empty when the device or the qdisc does not exist. */
export async function tcShow(netns: string, args: readonly string[], signal: AbortSignal): Promise<string> {
  return (await tryRun('tc', ['-n', netns, ...args], { signal, timeoutMs: TIMEOUT_MS })).stdout;
}
