/**
 * The provider's templates: one per class of machine, made of what is installed now. Those made of anything else go when
 * a newer one is there, the least used ones when there are too many.
 */
import { createHash } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import { parseInstanceId } from '../../src/base/ids.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import type { Clock } from '../../src/base/time.ts';
import type { Cloning, MachineShape, TemplateInfo } from '../../src/cloud/contract.ts';
import type { Logger } from '../../src/telemetry/log.ts';
import { type TemplateClass, templateClass } from './arguments.ts';
import type { QemuConfig } from './config.ts';
import { NoTemplate } from './errors.ts';
import type { GuestImage } from './guest-image.ts';
import { machineFiles } from './record.ts';
import { removeMachine } from './remove.ts';
import type { Reservations } from './reservations.ts';
import { buildTemplate } from './template-build.ts';
import { isTemplateId, listTemplates, readTemplate, type Template, touchTemplate } from './template-files.ts';
import { diskBlocks, fileBlocks } from './usage.ts';

/** Raised when templates of the former kind cannot be used any more. */
const FORMAT = 1;
/** Parts of a million by which two measurements of one counter may differ; an NTP daemon corrects more than this. */
const TSC_TOLERANCE = 500e-6;
/** A template that clones cannot be made of so often in a row is made anew. */
const MAX_FAILURES = 2;
/**
 * Warnings and errors of the agent itself, among the lines of the console. What containerd says while it starts is
 * usual, and so is the rehearsed enrolment that the agent refuses.
 */
const COMPLAINT = /^(?=.*"level":"(?:warn|error)")(?=.*"component":"agent")(?!.*"msg":"refused")/;

/** What a machine is started from, found out once per launch. */
export interface Ground {
  readonly image: GuestImage;
  readonly accel: 'kvm' | 'tcg';
  readonly tscKhz: number | undefined;
  /** The kernel's, complete. */
  readonly commandLine: string;
  readonly qemuVersion: string;
}

export interface TemplatesOptions {
  readonly root: string;
  readonly config: QemuConfig;
  readonly clock: Clock;
  readonly log: Logger;
  readonly reservations: Reservations;
  readonly ground: (signal: AbortSignal) => Promise<Ground>;
  /** How many machines run from a template. */
  readonly clones: (id: string) => Promise<number>;
}

export class Templates implements Cloning, AsyncDisposable {
  readonly #options: TemplatesOptions;
  readonly #closing = new AbortController();
  readonly #builds = new Map<string, { readonly done: Promise<TemplateInfo>; readonly info: TemplateInfo }>();
  readonly #failures = new Map<string, number>();

  constructor(options: TemplatesOptions) {
    this.#options = options;
  }

  /** To be called first: ends builds that an earlier run of the daemon has left. */
  async recover(signal: AbortSignal): Promise<void> {
    const { root, config, clock } = this.#options;
    const building = join(root, BUILDING);
    await mkdir(building, { recursive: true, mode: 0o700 });
    for (const name of await readdir(building)) {
      const id = parseInstanceId(name);
      const quit = (): Promise<boolean> => Promise.resolve(false);
      await removeMachine({ id, files: machineFiles(building, id), config, clock, quit }, signal);
    }
    for (const name of await readdir(root)) {
      if (name !== BUILDING && !isTemplateId(name)) await rm(join(root, name), { recursive: true, force: true });
    }
  }

  /** The template for a machine of this shape. Throws NoTemplate. */
  async find(shape: MachineShape, ground: Ground): Promise<Template> {
    const { root, config } = this.#options;
    const wanted = templateClass(shape, config);
    const id = templateId(root, inputs(ground, config), wanted);
    const found = await readTemplate(root, id);
    if (found === undefined) throw new NoTemplate(`there is no template for machines of ${words(wanted)} yet`);
    if (typeof found !== 'string' && sameCounter(found.record.tscKhz, ground.tscKhz)) {
      return found;
    }
    const why =
      typeof found === 'string' ? found : "this host's time stamp counter has another speed than when it was made";
    this.#options.log.error('a template cannot be used; it is removed', { template: id, reason: why });
    await this.#delete(id);
    throw new NoTemplate(`the template for machines of ${words(wanted)} cannot be used: ${why}`);
  }

  /** To be told how launches from a template end: one that only fails is removed, and the next `prepare` makes another. */
  async used(id: string, ok: boolean): Promise<void> {
    const failures = ok ? 0 : (this.#failures.get(id) ?? 0) + 1;
    this.#failures.set(id, failures);
    if (ok) {
      await this.#inUse(id).catch((error: unknown) =>
        this.#options.log.warn('old templates cannot be removed', { reason: errorMessage(error) }),
      );
    }
    if (failures < MAX_FAILURES) return;
    this.#options.log.error('clones of a template do not start; it is removed', { template: id, failures });
    await this.#delete(id);
  }

  async prepare(shape: MachineShape, signal: AbortSignal): Promise<TemplateInfo> {
    const { root, config, clock } = this.#options;
    const ground = await this.#options.ground(signal);
    const wanted = templateClass(shape, config);
    const id = templateId(root, inputs(ground, config), wanted);
    const present = await this.find(shape, ground).catch((error: unknown) => {
      if (!(error instanceof NoTemplate)) throw error;
      return undefined;
    });
    if (present) return await this.#info(present);
    const running = this.#builds.get(id);
    if (running) return await abortable(running.done, signal);
    const info: TemplateInfo = {
      ...{ id, shape: classShape(wanted), state: 'building', since: clock.now() },
      ...{ memoryBytes: 0, diskBytes: 0, clones: 0 },
    };
    const done = this.#build(id, wanted, ground).finally(() => this.#builds.delete(id));
    done.catch(() => undefined);
    this.#builds.set(id, { done, info });
    return await abortable(done, signal);
  }

  async list(signal: AbortSignal): Promise<readonly TemplateInfo[]> {
    signal.throwIfAborted();
    const infos: TemplateInfo[] = [...this.#builds.values()].map(({ info }) => info);
    for (const id of await listTemplates(this.#options.root)) {
      const template = await readTemplate(this.#options.root, id);
      if (typeof template === 'object' && !this.#builds.has(id)) infos.push(await this.#info(template));
    }
    return infos;
  }

  async remove(id: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (isTemplateId(id)) await this.#delete(id);
  }

  /** Ends a build in progress, with all that belongs to it. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new InfraletError('UNAVAILABLE', 'the provider was closed'));
    await Promise.allSettled([...this.#builds.values()].map(({ done }) => done));
  }

  async #build(id: string, wanted: TemplateClass, ground: Ground): Promise<TemplateInfo> {
    const { root, config, clock, log, reservations } = this.#options;
    const since = clock.now();
    log.info('building a template', { template: id, ...wanted });
    const instance = parseInstanceId(id);
    const said = await buildTemplate(
      {
        ...{ id: instance, files: machineFiles(join(root, BUILDING), instance), target: join(root, id) },
        ...{ class: wanted, inputs: inputs(ground, config), config, reservations, clock },
        ...{ image: ground.image, accel: ground.accel, commandLine: ground.commandLine, tscKhz: ground.tscKhz },
      },
      this.#closing.signal,
    );
    const template = await readTemplate(root, id);
    if (typeof template !== 'object') throw new InfraletError('INTERNAL', `the new template is gone: ${template}`);
    const info = await this.#info(template);
    const complaints = said.split('\n').filter((line) => COMPLAINT.test(line));
    if (complaints.length > 0) log.warn('the template is not as it should be', { template: id, complaints });
    log.info('template ready', { template: id, buildMs: clock.now() - since, memoryBytes: info.memoryBytes });
    this.#failures.delete(id);
    await this.#prune(id, template.record.inputs).catch((error: unknown) =>
      log.warn('old templates cannot be removed', { reason: errorMessage(error) }),
    );
    return info;
  }

  /** Removes what is made of anything else than `newest`, and the least used beyond the limit. */
  async #prune(newest: string, current: string): Promise<void> {
    const { root, config, log } = this.#options;
    const kept: Template[] = [];
    for (const id of await listTemplates(root)) {
      if (id === newest || this.#builds.has(id)) continue;
      const template = await readTemplate(root, id);
      if (typeof template === 'object' && template.record.inputs === current) {
        kept.push(template);
      } else await this.#delete(id);
    }
    const surplus = kept.toSorted((a, b) => b.lastUse - a.lastUse).slice(config.templates - 1);
    for (const { id } of surplus) {
      log.info('a template that was not used for long is removed', { template: id });
      await this.#delete(id);
    }
  }

  /** Notes the use, and removes what is made of other programs than this one, or was not used for long. */
  async #inUse(id: string): Promise<void> {
    const { root, config, clock, log } = this.#options;
    await touchTemplate(root, id, clock.now());
    const used = await readTemplate(root, id);
    if (typeof used !== 'object') return;
    for (const other of await listTemplates(root)) {
      if (other === id || this.#builds.has(other)) continue;
      const template = await readTemplate(root, other);
      if (typeof template !== 'object') continue;
      const stale = template.record.inputs !== used.record.inputs;
      if (!stale && clock.now() - template.lastUse < config.templateIdle) continue;
      log.info('a template that is out of use is removed', { template: other, stale });
      await this.#delete(other);
    }
  }

  async #info(template: Template): Promise<TemplateInfo> {
    return {
      id: template.id,
      shape: classShape(template.record.class),
      state: 'ready',
      since: template.record.builtAt,
      memoryBytes: await fileBlocks(template.files.memory),
      diskBytes: await diskBlocks(template.dir),
      clones: await this.#options.clones(template.id),
    };
  }

  /** Running clones keep the files open; the space comes back with the last of them. */
  async #delete(id: string): Promise<void> {
    this.#failures.delete(id);
    await rm(join(this.#options.root, id), { recursive: true, force: true });
  }
}

export const BUILDING = 'new';

function inputs({ image, accel, qemuVersion, commandLine }: Ground, config: QemuConfig): string {
  const cpu = accel === 'kvm' ? config.cpuModelKvm : config.cpuModelTcg;
  // The measured speed of the counter differs a little each time; it is compared on its own.
  const kernel = commandLine.replace(/ ?tsc_early_khz=\d+/, '');
  const parts = [FORMAT, image.identity, accel, config.binary, qemuVersion, cpu, kernel];
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}

/** The directory takes part: two installations on one host have different machines. */
function templateId(root: string, inputsDigest: string, { vcpus, memoryMiB, diskMiB }: TemplateClass): string {
  const key = JSON.stringify(['template', root, inputsDigest, vcpus, memoryMiB, diskMiB]);
  return createHash('sha256').update(key).digest('hex').slice(0, 12);
}

function sameCounter(a: number | undefined, b: number | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return Math.abs(a - b) <= a * TSC_TOLERANCE;
}

function classShape({ vcpus, memoryMiB, diskMiB }: TemplateClass): MachineShape {
  return { cpuMillis: vcpus * 1000, memoryBytes: memoryMiB * 2 ** 20, diskBytes: diskMiB * 2 ** 20 };
}

function words({ vcpus, memoryMiB, diskMiB }: TemplateClass): string {
  return `${vcpus} vCPU, ${memoryMiB} MiB memory and ${diskMiB} MiB disk`;
}
