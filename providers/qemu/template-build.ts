/**
 * Builds one template: boots a machine without user data in a directory of its own, waits until its agent says that all is
 * ready, freezes it and moves the files to their place. Cut anywhere, it leaves a machine that removeMachine ends and a
 * directory that is no template.
 */
import { mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { run } from '../../src/base/process.ts';
import { type Clock, until, withTimeout } from '../../src/base/time.ts';
import type { TemplateClass } from './arguments.ts';
import type { QemuConfig } from './config.ts';
import { CONSOLE_DEVICE, consoleText, ringSize } from './console.ts';
import type { GuestImage } from './guest-image.ts';
import { type Launched, launchMachine } from './launch.ts';
import { freeze } from './migrate.ts';
import type { Qmp } from './qmp.ts';
import type { MachineFiles } from './record.ts';
import { removeMachine } from './remove.ts';
import type { Reservations } from './reservations.ts';
import { TEMPLATE_FILES, writeTemplate } from './template-files.ts';

/** The agent's word on the console; see src/agent/template.ts. */
const READY = 'infralet: template ready';
const POLL_MS = 50;
/** Kept of the console of a template that was built. */
const MAX_CONSOLE = 65_536;
const CLEANUP_MS = 20_000;

export interface TemplateInput {
  readonly id: InstanceId;
  /** Of the machine while it is made. */
  readonly files: MachineFiles;
  /** Where the template goes; what is there is replaced. */
  readonly target: string;
  readonly class: TemplateClass;
  readonly inputs: string;
  readonly image: GuestImage;
  readonly accel: 'kvm' | 'tcg';
  readonly commandLine: string;
  readonly tscKhz: number | undefined;
  readonly config: QemuConfig;
  readonly reservations: Reservations;
  readonly clock: Clock;
}

/** Resolves with what the machine said on its console, control characters taken out. */
export async function buildTemplate(input: TemplateInput, signal: AbortSignal): Promise<string> {
  const { id, files, target, config, clock } = input;
  const since = clock.now();
  using limit = withTimeout(signal, config.templateTimeout, 'building the template');
  await discard(input, undefined, limit);
  let launched: Launched | undefined;
  try {
    launched = await launch(input, limit);
    const { qmp } = launched.started;
    const said = await ready(qmp, clock, limit);
    await freeze(qmp, launched.migration, join(files.dir, TEMPLATE_FILES.state), limit);
    await qmp.execute('quit', {}, limit);
    await abortable(launched.started.ended, limit);
    const staging = `${target}.new`;
    await rm(staging, { recursive: true, force: true });
    await mkdir(staging, { mode: 0o700 });
    for (const name of ['memory', 'state', 'scratch'] as const) {
      await rename(join(files.dir, TEMPLATE_FILES[name]), join(staging, TEMPLATE_FILES[name]));
      await sync(join(staging, TEMPLATE_FILES[name]));
    }
    await makeOverlay(input, staging, limit);
    await writeTemplate(staging, {
      inputs: input.inputs,
      class: input.class,
      ...(input.tscKhz === undefined ? {} : { tscKhz: input.tscKhz }),
      builtAt: clock.now(),
      buildMs: clock.now() - since,
    });
    await rm(target, { recursive: true, force: true });
    await rename(staging, target);
    return said;
  } catch (error) {
    const reason: unknown = limit.aborted ? limit.reason : error;
    throw InfraletError.from(reason, 'UNAVAILABLE');
  } finally {
    launched?.started.qmp[Symbol.dispose]();
    await discard(input, launched, AbortSignal.timeout(CLEANUP_MS));
    input.reservations.release(id);
  }
}

/** Removes what a build, this one or an earlier one that was cut, has left. */
async function discard(
  { id, files, target, config, clock }: Pick<TemplateInput, 'id' | 'files' | 'target' | 'config' | 'clock'>,
  launched: Launched | undefined,
  signal: AbortSignal,
): Promise<void> {
  const quit = async (): Promise<boolean> => {
    await launched?.started.qmp.execute('quit', {}, signal).catch(() => undefined);
    return launched !== undefined;
  };
  await removeMachine({ id, files, config, clock, quit }, signal);
  await rm(`${target}.new`, { recursive: true, force: true });
}

async function launch(input: TemplateInput, signal: AbortSignal): Promise<Launched> {
  const { vcpus, memoryMiB, diskMiB } = input.class;
  return await launchMachine(
    {
      id: input.id,
      files: input.files,
      image: input.image,
      accel: input.accel,
      commandLine: input.commandLine,
      config: input.config,
      reservations: input.reservations,
      now: input.clock.now(),
      request: {
        token: `template-${input.id}`,
        tags: {},
        shape: { cpuMillis: vcpus * 1000, memoryBytes: memoryMiB * 2 ** 20, diskBytes: diskMiB * 2 ** 20 },
        userData: '',
      },
      start: { kind: 'template', class: input.class, memory: join(input.files.dir, TEMPLATE_FILES.memory) },
    },
    signal,
  );
}

async function ready(qmp: Qmp, clock: Clock, signal: AbortSignal): Promise<string> {
  let said = '';
  const ended = qmp.closed.then(() => {
    throw new InfraletError('UNAVAILABLE', `the template ended while it booted; its console: ${consoleEnd(said)}`);
  });
  const look = until(
    async () => {
      const text = await qmp.execute('ringbuf-read', { device: CONSOLE_DEVICE, size: ringSize(65_536) }, signal);
      said += String(text);
      return said.includes(READY) ? true : undefined;
    },
    { everyMs: POLL_MS, clock, signal },
  );
  try {
    await Promise.race([look, ended]);
    return consoleText(Buffer.from(said), MAX_CONSOLE);
  } catch (error) {
    if (!signal.aborted) throw error;
    throw new InfraletError('DEADLINE_EXCEEDED', `${errorMessage(signal.reason)}; its console: ${consoleEnd(said)}`);
  } finally {
    ended.catch(() => undefined);
    look.catch(() => undefined);
  }
}

function consoleEnd(text: string): string {
  return consoleText(Buffer.from(text), 500);
}

/** Made once and copied for each clone: an empty layer over the frozen disk costs a program otherwise. */
async function makeOverlay(input: TemplateInput, staging: string, signal: AbortSignal): Promise<void> {
  const { config, target } = input;
  const size = String(Math.max(input.class.diskMiB * 2 ** 20, Math.ceil(input.image.scratchBytes / 2 ** 20) * 2 ** 20));
  // The base is named where it will be, and is not looked at (-u).
  const base = join(target, TEMPLATE_FILES.scratch);
  const overlay = join(staging, TEMPLATE_FILES.overlay);
  const args = ['create', '-q', '-f', 'qcow2', '-u', '-F', 'qcow2', '-b', base, overlay, size];
  await run(config.imageTool, args, { signal, timeoutMs: config.readyTimeout });
}

async function sync(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
