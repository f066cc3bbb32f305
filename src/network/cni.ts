/**
 * The CNI execution protocol: one program per plugin, the call in CNI_* variables, configuration on stdin, result or error
 * as JSON on stdout. A conflist is a chain: ADD and CHECK go forwards, DEL backwards.
 * https://www.cni.dev/docs/spec/
 */
import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { tryRun } from '../base/process.ts';
import type { Conflist, PluginConfig } from './conflist.ts';
import { type CniResult, parseResult } from './result.ts';

export interface CniCall {
  readonly conflist: Conflist;
  readonly containerId: string;
  /** Path of the network namespace. */
  readonly netns: string;
  readonly ifName: string;
  /** CNI_ARGS, already joined. */
  readonly args: string;
  /** Values for the capabilities that plugins declare, such as portMappings. */
  readonly capabilities: Readonly<Record<string, unknown>>;
  readonly binDirs: readonly string[];
  /** For each plugin of the chain, milliseconds. */
  readonly timeoutMs: number;
}

const failureSchema = z.object({ code: z.number(), msg: z.string(), details: z.string().default('') });
/** Code of the specification: try again later. */
const TRY_AGAIN = 11;

/** Runs the whole chain; the last result counts. */
export async function cniAdd(call: CniCall, signal: AbortSignal): Promise<CniResult> {
  let result: CniResult | undefined;
  for (const plugin of call.conflist.plugins) {
    result = parseResult(plugin.type, await invoke('ADD', call, plugin, result, signal));
  }
  if (result === undefined) throw new InfraletError('INTERNAL', 'the CNI chain has no plugin');
  return result;
}

export async function cniCheck(call: CniCall, result: CniResult, signal: AbortSignal): Promise<void> {
  const { cniVersion, disableCheck, plugins } = call.conflist;
  // CHECK came with 0.4.0.
  if (disableCheck === true || disableCheck === 'true' || cniVersion.startsWith('0.3')) return;
  for (const plugin of plugins) await invoke('CHECK', call, plugin, result, signal);
}

/**
 * Runs DEL of the plugins whose place in the chain is below `remaining`, backwards. `onDone` is told how many are left after
 * each, so that a crash does not repeat those that have been through.
 */
export async function cniDel(
  call: CniCall,
  result: CniResult | undefined,
  remaining: number,
  onDone: (remaining: number) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  for (let index = Math.min(remaining, call.conflist.plugins.length) - 1; index >= 0; index -= 1) {
    const plugin = call.conflist.plugins[index];
    if (plugin) await invoke('DEL', call, plugin, result, signal);
    await onDone(index);
  }
}

/** The plugin's program; throws FAILED_PRECONDITION when it is nowhere. */
export async function findPlugin(type: string, binDirs: readonly string[]): Promise<string> {
  for (const dir of binDirs) {
    const path = join(dir, type);
    try {
      await access(path, constants.X_OK);
      return path;
    } catch (error) {
      if (!hasErrno(error, 'ENOENT', 'ENOTDIR', 'EACCES')) throw error;
    }
  }
  throw new InfraletError('FAILED_PRECONDITION', `the CNI plugin ${type} is not in ${binDirs.join(', ')}`, {
    hint: 'apt-get install -y containernetworking-plugins, or set network.binDirs',
  });
}

/** The plugin's own configuration as the specification composes it. */
export function pluginInput(call: CniCall, plugin: PluginConfig, previous: CniResult | undefined): string {
  const runtimeConfig = Object.fromEntries(
    Object.entries(call.capabilities).filter(([name]) => plugin.capabilities[name] === true),
  );
  const { capabilities: _, ...own } = plugin;
  return JSON.stringify({
    ...own,
    cniVersion: call.conflist.cniVersion,
    name: call.conflist.name,
    ...(Object.keys(runtimeConfig).length > 0 ? { runtimeConfig } : {}),
    ...(previous ? { prevResult: previous } : {}),
  });
}

async function invoke(
  command: 'ADD' | 'CHECK' | 'DEL',
  call: CniCall,
  plugin: PluginConfig,
  previous: CniResult | undefined,
  signal: AbortSignal,
): Promise<string> {
  const program = await findPlugin(plugin.type, call.binDirs);
  // An ADD must not outlive a killed daemon: what it did after the next one's DEL would stay for ever. A DEL must be let
  // finish: bridge, cut short after the link is gone, does not find the addresses of its rules the next time.
  const finishing = command === 'DEL';
  const result = await tryRun('setpriv', [...(finishing ? [] : ['--pdeathsig', 'KILL']), '--', program], {
    signal: finishing ? new AbortController().signal : signal,
    timeoutMs: call.timeoutMs,
    input: pluginInput(call, plugin, previous),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: call.containerId,
      CNI_NETNS: call.netns,
      CNI_IFNAME: call.ifName,
      CNI_ARGS: call.args,
      CNI_PATH: call.binDirs.join(':'),
    },
  });
  if (result.exitCode === 0) return result.stdout;
  throw failure(command, call, plugin.type, result);
}

function failure(
  command: string,
  call: CniCall,
  plugin: string,
  result: { readonly exitCode: number; readonly stdout: string; readonly stderr: string },
): InfraletError {
  const parsed = failureSchema.safeParse(parseJson(result.stdout));
  const words = parsed.success
    ? [parsed.data.msg, parsed.data.details].filter((part) => part !== '').join(': ')
    : (result.stderr.trim() || result.stdout.trim() || 'it said nothing').slice(-1000);
  const code = parsed.success && parsed.data.code === TRY_AGAIN ? 'UNAVAILABLE' : 'INTERNAL';
  return new InfraletError(
    code,
    `CNI ${command} by plugin ${plugin} of network ${call.conflist.name} failed: ${words}`,
    {
      context: { sandboxId: call.containerId, exitCode: result.exitCode },
    },
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
