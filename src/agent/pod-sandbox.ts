/**
 * The pod sandbox that a template is frozen with. Making one costs an emulated machine seconds, most of it starting
 * programs; so it is made once, by nobody's name, and each clone only gives it its pod's hostname, DNS and network. What
 * containerd takes from a sandbox for its containers beyond that comes from the requests of the node.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { promisify } from 'node:util';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { PodSandbox__Output } from '../gen/infralet/agent/v1/PodSandbox.ts';
import {
  GUEST_CGROUP_PARENT,
  GUEST_LOG_DIRECTORY,
  POD_NIC,
  TEMPLATE_CONFLIST,
  TEMPLATE_NAMESPACE,
} from '../rpc/agent-protocol.ts';
import type { Logger } from '../telemetry/log.ts';
import { checkNic, HOSTNAME } from './configure.ts';
import type { Containerd } from './containerd.ts';
import { type AgentOptions, LIMITS } from './options.ts';
import { outcomes, setUpLink } from './rtnetlink.ts';
import { firstText, type PodFacts, runPodSandboxRequest } from './wire.ts';

/** Where the id is kept: the agent may be started again between the template and the pod. */
const ID_FILE = 'template-sandbox';
const NAME = 'template';
/** What containerd is told of it. */
export const TEMPLATE_POD: PodFacts = {
  name: NAME,
  namespace: TEMPLATE_NAMESPACE,
  hostname: NAME,
  logDirectory: GUEST_LOG_DIRECTORY,
  cgroupParent: GUEST_CGROUP_PARENT,
};
/** Link-local and never seen outside: the NIC is down until it has the pod's own. */
const PLACEHOLDER = '169.254.1.1/32';
const NIC = 'eth0';
const RUN = '/runtime.v1.RuntimeService/RunPodSandbox';
const RUN_MS = 30_000;
const MAX_RESOLV_CONF = 64 * 1024;
const MAX_ENTRIES = 256;

/** In a template: makes the sandbox; its id. Without one (empty), clones make theirs when they get their pod. */
export async function makeTemplateSandbox(containerd: Containerd, options: AgentOptions, log: Logger): Promise<string> {
  const conflist = join(options.roots.ROOT_CNI, TEMPLATE_CONFLIST);
  const ipam = { type: 'static', addresses: [{ address: PLACEHOLDER }] };
  const plugins = [{ type: 'host-device', hwaddr: POD_NIC, ipam }];
  try {
    writeFileSync(conflist, JSON.stringify({ cniVersion: '1.0.0', name: 'template', plugins }));
    const id = await run(containerd);
    writeFileSync(join(options.stateDir, ID_FILE), id);
    await awaitPod(options);
    return id;
  } catch (error) {
    rmSync(conflist, { force: true });
    log.warn('no sandbox for the template', { error: errorMessage(error) });
    return '';
  }
}

async function run(containerd: Containerd): Promise<string> {
  const signal = AbortSignal.timeout(RUN_MS);
  const request = runPodSandboxRequest(TEMPLATE_POD);
  for (;;) {
    try {
      return firstText(await containerd.call(RUN, request, Date.now() + RUN_MS, signal));
    } catch (error) {
      // containerd watches the directory of the configuration, and has not seen it yet.
      if (!/cni/i.test(errorMessage(error)) || signal.aborted) throw error;
      await systemClock.sleep(LIMITS.resubscribeMs, signal);
    }
  }
}

/** Gives the template's sandbox to the pod. Its id; empty when there is none. May be repeated. */
export async function takeSandbox(pod: PodSandbox__Output, options: AgentOptions): Promise<string> {
  const id = templateSandbox(options);
  if (id === '') return '';
  check(pod);
  const files = join(options.sandboxesDir, id);
  writeFileSync(join(files, 'hostname'), `${pod.hostname}\n`);
  writeFileSync(join(files, 'resolv.conf'), pod.resolvConf);
  if (!(await setUpByProgram(pod))) await setUpByShell(id, pod, options);
  return id;
}

/** Of the sandbox that the template was frozen with; empty when there is none. */
export function templateSandbox({ stateDir }: AgentOptions): string {
  try {
    return readFileSync(join(stateDir, ID_FILE), 'utf8');
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return '';
    throw error;
  }
}

function check(pod: PodSandbox__Output): void {
  checkNic(pod.mac, pod.mtu);
  if (!HOSTNAME.test(pod.hostname)) throw wrong(`${JSON.stringify(pod.hostname)} is not a host name`);
  if (pod.resolvConf.length > MAX_RESOLV_CONF) throw wrong('resolv.conf is too long');
  if (pod.addresses.length > MAX_ENTRIES || pod.routes.length > MAX_ENTRIES)
    throw wrong('too many addresses or routes');
  for (const { address } of pod.addresses) checkPrefix(address);
  for (const { destination, gateway } of pod.routes) {
    checkPrefix(destination);
    if (gateway !== '' && isIP(gateway) === 0) throw wrong(`${JSON.stringify(gateway.slice(0, 64))} is no address`);
  }
}

function checkPrefix(text: string): void {
  const [, address = '', bits] = /^(.+)\/(\d{1,3})$/.exec(text) ?? [];
  if (isIP(address) === 0 || Number(bits) > 128) throw wrong(`${JSON.stringify(text.slice(0, 64))} is no prefix`);
}

/** A program in the sandbox that waits for what a pod needs; a template starts it for its clones. */
interface Waiting {
  readonly stdin: Writable;
  readonly answers: Promise<Buffer>;
  readonly ended: Promise<unknown[]>;
  /** Of the pod's interface. */
  readonly index: number;
}

let waiting: Waiting | undefined;

const execute = promisify(execFile);

/**
 * In a template: makes the sandbox as nobody's again, its interface down and with the placeholder only, and starts the
 * program that gives it to the next pod. Starting one costs an emulated machine as much as all that follows.
 */
export async function awaitPod(options: AgentOptions): Promise<void> {
  const id = templateSandbox(options);
  if (id === '' || options.podSetupCommand === '') return;
  await inSandbox(id, options, [
    ['ip', 'link', 'set', NIC, 'down'],
    ['ip', 'addr', 'flush', 'dev', NIC],
    ['ip', 'addr', 'add', PLACEHOLDER, 'dev', NIC],
  ]);
  const { stdout } = await execute('nsenter', [...entry(id, options), 'ip', '-o', 'link', 'show', 'dev', NIC]);
  const index = Number(/^(\d+):/.exec(stdout)?.[1]);
  if (!Number.isSafeInteger(index)) return;
  const child = spawn('nsenter', [...entry(id, options), options.podSetupCommand], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  waiting = { ...ending(child), answers: all(child.stdout), index };
}

/** False when nothing waits, or the kernel did not like a message: what to do then says why. */
async function setUpByProgram(pod: PodSandbox__Output): Promise<boolean> {
  if (!waiting) return false;
  const { stdin, answers, ended, index } = waiting;
  waiting = undefined;
  const { bytes, count } = setUpLink({ ...pod, index, placeholder: PLACEHOLDER });
  const name = Buffer.from(pod.hostname);
  const lengths = Buffer.alloc(8);
  lengths.writeUInt32LE(name.length, 0);
  lengths.writeUInt32LE(bytes.length, 4);
  stdin.end(Buffer.concat([lengths, name, bytes]));
  const [code] = await ended;
  const done = outcomes(await answers).filter((outcome) => outcome === 0);
  return code === 0 && done.length === count;
}

async function setUpByShell(id: string, pod: PodSandbox__Output, options: AgentOptions): Promise<void> {
  await inSandbox(id, options, [
    ['hostname', pod.hostname],
    // Down, so that the addresses that follow from the hardware address are made anew.
    ['ip', 'link', 'set', NIC, 'down'],
    ['ip', 'addr', 'flush', 'dev', NIC],
    ['ip', 'link', 'set', NIC, 'address', pod.mac, 'mtu', String(pod.mtu)],
    ...pod.addresses.map(({ address }) => ['ip', 'addr', 'add', address, 'dev', NIC]),
    ['ip', 'link', 'set', NIC, 'up'],
    ...pod.routes.map(({ destination, gateway }) => [
      ...['ip', gateway.includes(':') || destination.includes(':') ? '-6' : '-4', 'route', 'replace', destination],
      ...(gateway === '' ? [] : ['via', gateway]),
      ...['dev', NIC],
    ]),
  ]);
}

/** Runs commands one after the other in the UTS and network namespaces of the sandbox; each word is checked before. */
async function inSandbox(id: string, options: AgentOptions, commands: readonly (readonly string[])[]): Promise<void> {
  const child = spawn('nsenter', [...entry(id, options), '/bin/sh'], { stdio: ['pipe', 'ignore', 'ignore'] });
  const { stdin, ended } = ending(child);
  stdin.end(['set -e', ...commands.map((words) => words.join(' '))].join('\n'));
  const [code, signal]: unknown[] = await ended;
  if (code === 0) return;
  throw new InfraletError(
    'INTERNAL',
    `the sandbox cannot be configured (exit code ${JSON.stringify(code)}, signal ${JSON.stringify(signal)})`,
  );
}

function ending(child: ChildProcess & { readonly stdin: Writable }): Pick<Waiting, 'stdin' | 'ended'> {
  child.stdin.on('error', () => undefined);
  const ended = once(child, 'exit');
  ended.catch(() => undefined);
  return { stdin: child.stdin, ended };
}

/** Never rejects. */
async function all(stream: Readable): Promise<Buffer> {
  return await buffer(stream).catch(() => Buffer.alloc(0));
}

/** Words for nsenter. */
function entry(id: string, options: AgentOptions): readonly string[] {
  const [pid] = pids(join(options.cgroupDir, GUEST_CGROUP_PARENT, id));
  if (pid === undefined) throw new InfraletError('FAILED_PRECONDITION', 'the sandbox of the template does not run');
  return ['-t', pid, '-u', '-n'];
}

/** The runtime may have put them into a group below. */
function pids(group: string): readonly string[] {
  const own = readFileSync(join(group, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean);
  if (own.length > 0) return own;
  return readdirSync(group, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .flatMap(({ name }) => pids(join(group, name)));
}

function wrong(why: string): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', why);
}
