/**
 * What every provider must do, whatever its machines are made of. A provider's author calls this from a test file with a
 * way to open the provider; state must survive closing and opening again, unless the provider says it has none.
 */
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import { type InstanceId, parseInstanceId } from '../../src/base/ids.ts';
import {
  FAULT_KINDS,
  type Instance,
  type LaunchRequest,
  type LaunchResult,
  type MachineUsage,
  type Provider,
} from '../../src/cloud/contract.ts';

export interface ProviderHarness extends AsyncDisposable {
  /** Opens the provider over the harness's state; called again after closing it to look at what a restart finds. */
  open(signal: AbortSignal): Promise<Provider>;
  /** False when closing the provider forgets its machines. */
  readonly durable: boolean;
  /** Waits until the machine's console must have something. */
  consoleReady(provider: Provider, id: InstanceId, signal: AbortSignal): Promise<string>;
  /** Makes a block volume that this machine can have, and says its name; only where the provider has `volumes`. */
  readonly volume?: (instance: Instance) => Promise<string>;
  /** What exists beside the provider's own answers: processes, files, devices. Empty when nothing does. */
  leftovers(): Promise<readonly string[]>;
}

const SHAPE = { cpuMillis: 1000, memoryBytes: 256 * 2 ** 20, diskBytes: 2 ** 30 };

/** What a provider may have or not. */
const OPTIONAL = [
  'usage',
  'leftovers',
  'explain',
  'clone',
  'power',
  'volumes',
  'resize',
  'hourlyPrice',
  'figures',
] as const;

export interface SuiteOptions {
  /** Which of the optional parts it has: the suite fails when it has others, or one of these no more. */
  readonly offers: readonly (typeof OPTIONAL)[number][];
  /** Runs once before all tests, for what may take minutes. */
  readonly prepare?: () => Promise<unknown>;
  /** What the provider is tested against, where it is tested against several. */
  readonly against?: string;
}

export function providerSuite(name: string, makeHarness: () => Promise<ProviderHarness>, options: SuiteOptions): void {
  const offers = new Set(options.offers);
  describe(options.against === undefined ? `provider ${name}` : `provider ${name} against ${options.against}`, () => {
    const signal = AbortSignal.timeout(900_000);
    let harness: ProviderHarness;
    let provider: Provider;
    let count = 0;

    const request = (tags: Record<string, string> = {}): LaunchRequest => {
      count += 1;
      return { token: `conformance-${process.pid}-${count}`, tags, shape: SHAPE, userData: '{"version":1}' };
    };
    const launched = (results: readonly LaunchResult[], token: string): Instance => {
      const result = results.find((entry) => entry.token === token);
      if (!result?.ok) throw InfraletError.from(result?.error ?? `no result for ${token}`);
      return result.instance;
    };
    const launch = async (asked: LaunchRequest): Promise<Instance> =>
      launched(await provider.launch([asked], signal), asked.token);
    const describeIds = async (...ids: InstanceId[]): Promise<readonly Instance[]> =>
      (await provider.describe({ by: 'ids', ids }, signal)).filter(({ state }) => state !== 'terminated');

    beforeAll(async () => {
      await options.prepare?.();
    }, 900_000);
    beforeEach(async () => {
      harness = await makeHarness();
      provider = await harness.open(signal);
    });
    afterEach(async () => {
      const all = await provider.describe({ by: 'tags', tags: {} }, signal);
      await provider.terminate(
        all.map(({ id }) => id),
        signal,
      );
      expect(await harness.leftovers()).toEqual([]);
      await provider[Symbol.asyncDispose]();
      await harness[Symbol.asyncDispose]();
    });

    test('has the name that the configuration uses', () => {
      expect(provider.name).toBe(name);
    });

    test('launches a machine that carries what was asked for', async () => {
      const asked = request({ 'infralet.dev/node': 'n1', 'infralet.dev/sandbox': 's1' });
      const before = Date.now();
      const instance = await launch(asked);
      expect(instance).toMatchObject({ token: asked.token, tags: asked.tags, shape: SHAPE, reason: '' });
      expect(['pending', 'running']).toContain(instance.state);
      expect(instance.launchedAt).toBeGreaterThanOrEqual(before - 1000);
      expect(await describeIds(instance.id)).toMatchObject([{ id: instance.id, token: asked.token, tags: asked.tags }]);
    });

    test('makes one machine per token, also when asked twice at once', async () => {
      const asked = request();
      const [first, second] = await Promise.all([launch(asked), launch(asked)]);
      expect(second.id).toBe(first.id);
      expect((await launch(asked)).id).toBe(first.id);
      expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toHaveLength(1);
    });

    test('answers every request of a batch, and a bad one does not fail the others', async () => {
      const [one, two] = [request(), request()];
      const bad = { ...request(), userData: 'x'.repeat(5000) };
      const worse = { ...request(), token: 't'.repeat(65) };
      const results = await provider.launch([one, bad, two, worse], signal);
      expect(results.map(({ token }) => token).sort()).toEqual([one, bad, two, worse].map(({ token }) => token).sort());
      expect(launched(results, one.token).id).not.toBe(launched(results, two.token).id);
      for (const { token } of [bad, worse]) {
        const result = results.find((entry) => entry.token === token);
        expect(result?.ok).toBe(false);
        if (result && !result.ok) expect(provider.classify(result.error).kind).toBe('invalid');
      }
      expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toHaveLength(2);
    });

    test('describes by tags: all of them must match', async () => {
      const [a, b] = [request({ node: 'n1', pod: 'a' }), request({ node: 'n1', pod: 'b' })];
      await provider.launch([a, b], signal);
      const tokens = async (tags: Record<string, string>): Promise<readonly string[]> =>
        (await provider.describe({ by: 'tags', tags }, signal)).map(({ token }) => token).sort();
      expect(await tokens({ node: 'n1' })).toEqual([a.token, b.token].sort());
      expect(await tokens({ node: 'n1', pod: 'b' })).toEqual([b.token]);
      expect(await tokens({ node: 'n2' })).toEqual([]);
      expect(await tokens({ pod: 'a', other: 'x' })).toEqual([]);
    });

    test('leaves out ids that it does not know, and ids that are none', async () => {
      const { id } = await launch(request());
      const strange = ['nobody', '../../etc', 'a'.repeat(256), '0123456789ab'].map(parseInstanceId);
      expect((await describeIds(...strange, id)).map((instance) => instance.id)).toEqual([id]);
    });

    test('terminates: at once, again, and what never was', async () => {
      const instance = await launch(request());
      await provider.terminate([instance.id, parseInstanceId('nobody'), parseInstanceId('../..')], signal);
      expect(await describeIds(instance.id)).toEqual([]);
      expect(await harness.leftovers()).toEqual([]);
      await provider.terminate([instance.id], signal);
      await provider.terminate([], signal);
    });

    test('can be asked to launch and to terminate the same machine at the same time', async () => {
      const asked = request();
      const { id } = await launch(asked);
      const [, [again]] = await Promise.all([
        provider.terminate([id], signal),
        provider.launch([asked], signal),
        provider.terminate([id], signal),
      ]);
      // Whoever comes first: it may have ended already.
      if (again && !again.ok) expect(provider.classify(again.error).kind).toBe('terminal');
      await provider.terminate([id], signal);
      expect(await describeIds(id)).toEqual([]);
      expect(await harness.leftovers()).toEqual([]);
    });

    test('shows the end of the console, and no more than was asked for', async () => {
      const { id } = await launch(request());
      const text = await harness.consoleReady(provider, id, signal);
      expect(text.length).toBeGreaterThan(10);
      const end = await provider.console(id, 10, signal);
      expect(Buffer.byteLength(end)).toBeLessThanOrEqual(10);
      expect(await provider.console(parseInstanceId('nobody'), 100, signal)).toBe('');
    });

    test('has the optional parts that it is said to have, and no others', () => {
      expect(OPTIONAL.filter((part) => provider[part] !== undefined)).toEqual(
        OPTIONAL.filter((part) => offers.has(part)),
      );
    });

    if (offers.has('usage')) {
      test('says what a machine uses', async () => {
        const { id } = await launch(request());
        const ask = async (machine: InstanceId): Promise<MachineUsage> =>
          await having(provider.usage?.(machine, signal));
        const usage = await ask(id);
        expect(usage.memoryBytes).toBeGreaterThan(0);
        expect(usage.diskBytes).toBeGreaterThan(0);
        await expect(ask(parseInstanceId('nobody'))).rejects.toThrow(InfraletError);
      });
    }

    test('classifies everything that can be thrown', () => {
      const errors = [new Error('x'), new InfraletError('INVALID_ARGUMENT', 'x'), 'text', undefined, { code: 7 }];
      for (const error of errors) {
        const fault = provider.classify(error);
        expect(FAULT_KINDS).toContain(fault.kind);
        expect(typeof fault.message).toBe('string');
      }
      expect(provider.classify(new InfraletError('INVALID_ARGUMENT', 'x')).kind).toBe('invalid');
    });

    test('obeys its signal', async () => {
      const asked = request();
      const aborted = AbortSignal.abort();
      const [result] = await provider.launch([asked], aborted);
      expect(result?.ok).toBe(false);
      await expect(provider.describe({ by: 'tags', tags: {} }, aborted)).rejects.toThrow(/abort/i);
      expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toEqual([]);
      expect(await harness.leftovers()).toEqual([]);
    });

    test('tells what the host can do', async () => {
      const checks = await provider.doctor(signal);
      expect(checks.length).toBeGreaterThan(0);
      for (const check of checks) {
        expect(check.name).not.toBe('');
        expect(check.detail).not.toBe('');
        expect([check.name, check.ok || check.fix !== undefined]).toEqual([check.name, true]);
      }
    });

    if (offers.has('clone')) {
      test('clones: refuses without a template, prepares one for all who ask, counts what runs from it', async () => {
        const clone = having(provider.clone);
        const asked: LaunchRequest = { ...request(), start: 'clone' };
        const [refused] = await provider.launch([asked], signal);
        expect(refused?.ok).toBe(false);
        expect(provider.classify(refused?.ok === false ? refused.error : undefined).kind).toBe('no-template');
        expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toEqual([]);
        const [one, two] = await Promise.all([clone.prepare(SHAPE, signal), clone.prepare(SHAPE, signal)]);
        expect(two.id).toBe(one.id);
        expect(one.state).toBe('ready');
        expect(one.shape.memoryBytes).toBeGreaterThanOrEqual(SHAPE.memoryBytes);
        // A template is no machine: nobody finds it, and it leaves nothing but itself.
        expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toEqual([]);
        expect(await harness.leftovers()).toEqual([]);
        const instance = await launch(asked);
        expect(instance).toMatchObject({ token: asked.token, shape: SHAPE, start: 'clone' });
        expect((await launch({ ...asked, start: 'boot' })).id).toBe(instance.id);
        expect(await clone.list(signal)).toMatchObject([{ id: one.id, clones: 1 }]);
        await clone.remove(one.id, signal);
        await clone.remove(one.id, signal);
        expect(await clone.list(signal)).toEqual([]);
        expect((await describeIds(instance.id))[0]?.state).toBe('running');
      });
    }

    if (offers.has('resize')) {
      test('resizes a running machine within what it was made with', async () => {
        const resize = async (...args: Parameters<NonNullable<Provider['resize']>>): Promise<void> =>
          await having(provider.resize?.(...args));
        const instance = await launch(request());
        const less = { ...SHAPE, cpuMillis: 500 };
        await resize(instance.id, less, signal);
        await resize(instance.id, less, signal);
        expect(await describeIds(instance.id)).toMatchObject([{ id: instance.id, shape: less, token: instance.token }]);
        await resize(instance.id, SHAPE, signal);
        expect(await describeIds(instance.id)).toMatchObject([{ shape: SHAPE, state: 'running' }]);
        const kinds = async (...args: Parameters<NonNullable<Provider['resize']>>): Promise<string> =>
          await resize(...args).then(
            () => 'done',
            (error: unknown) => provider.classify(error).kind,
          );
        expect(await kinds(instance.id, { ...SHAPE, memoryBytes: 2 ** 40 }, signal)).toBe('unsupported');
        expect(await kinds(parseInstanceId('nobody'), SHAPE, signal)).toBe('terminal');
        await expect(resize(instance.id, less, AbortSignal.abort())).rejects.toThrow(/abort/i);
        expect(await describeIds(instance.id)).toMatchObject([{ shape: SHAPE }]);
      });
    }

    if (offers.has('power')) {
      test('suspends machines and resumes them, as often as it is asked to', async () => {
        const power = having(provider.power);
        const [one, two] = [await launch(request()), await launch(request())];
        const states = async (): Promise<readonly string[]> =>
          (await Promise.all([one, two].map(async ({ id }) => await describeIds(id)))).flat().map(({ state }) => state);
        await power.suspend([one.id], signal);
        await power.suspend([one.id], signal);
        expect(await states()).toEqual(['suspended', 'running']);
        await power.resume([one.id, two.id], signal);
        await power.resume([one.id], signal);
        expect(await states()).toEqual(['running', 'running']);
        await power.suspend([two.id], signal);
        await provider.terminate([two.id], signal);
        for (const act of ['suspend', 'resume'] as const) {
          const outcome = await power[act]([two.id], signal).catch((error: unknown) => provider.classify(error).kind);
          expect(outcome).toBe('terminal');
        }
        expect(await states()).toEqual(['running']);
        expect(await harness.leftovers()).toEqual([]);
      });
    }

    if (offers.has('volumes')) {
      test('attaches a volume to one machine at a time, and takes it back', async () => {
        const volumes = having(provider.volumes);
        const makeVolume = having(harness.volume);
        const [one, two] = [await launch(request()), await launch(request())];
        const volume = await makeVolume(one);
        const kind = async (work: Promise<unknown>): Promise<string> =>
          await work.then(
            () => 'done',
            (error: unknown) => provider.classify(error).kind,
          );
        const { serial } = await volumes.attach(one.id, volume, signal);
        expect(serial).not.toBe('');
        expect(await volumes.attach(one.id, volume, signal)).toEqual({ serial });
        expect(await kind(volumes.attach(two.id, volume, signal))).toBe('invalid');
        await volumes.detach(two.id, volume, signal);
        expect(await kind(volumes.attach(two.id, volume, signal))).toBe('invalid');
        await volumes.detach(one.id, volume, signal);
        await volumes.detach(one.id, volume, signal);
        // Two of them side by side; a machine that ends lets go of its own.
        const another = await makeVolume(one);
        expect((await volumes.attach(one.id, another, signal)).serial).not.toBe(serial);
        await volumes.attach(one.id, volume, signal);
        await provider.terminate([one.id], signal);
        await volumes.detach(one.id, volume, signal);
        for (const unknown of ['no-such-volume', '../..', 'vol-00000000000000000', 'us-east1-b/nobody']) {
          expect(await kind(volumes.attach(two.id, unknown, signal))).toBe('invalid');
          await volumes.detach(two.id, unknown, signal);
        }
        await expect(volumes.attach(two.id, volume, AbortSignal.abort())).rejects.toThrow(/abort/i);
      });
    }

    if (offers.has('hourlyPrice')) {
      test('names prices that grow with the machine', () => {
        const price = having(provider.hourlyPrice?.(SHAPE));
        expect(price).toBeGreaterThan(0);
        const larger = { ...SHAPE, cpuMillis: 4 * SHAPE.cpuMillis, memoryBytes: 4 * SHAPE.memoryBytes };
        expect(having(provider.hourlyPrice?.(larger))).toBeGreaterThanOrEqual(price);
      });
    }

    test('finds its machines again after a restart, and they are the same; none, if it is said to forget', async () => {
      const asked = request({ pod: 'p' });
      const before = await launch(asked);
      await provider[Symbol.asyncDispose]();
      provider = await harness.open(signal);
      if (!harness.durable) {
        expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toEqual([]);
        return;
      }
      // It may have gone on from pending to running.
      const state = expect.toBeOneOf([before.state, 'running']);
      expect(await provider.describe({ by: 'tags', tags: { pod: 'p' } }, signal)).toEqual([{ ...before, state }]);
      expect((await launch(asked)).id).toBe(before.id);
      await provider.terminate([before.id], signal);
      expect(await harness.leftovers()).toEqual([]);
    });
  });
}

/** What the provider has by the suite's options. */
function having<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('the provider lacks what it is said to offer');
  return part;
}
