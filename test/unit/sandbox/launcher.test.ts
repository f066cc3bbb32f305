/** Clones first, cold boots when they cannot be had: the launcher over the fake provider. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseConfig as parseFake } from '../../../providers/fake/config.ts';
import { FakeError, FaultPlan } from '../../../providers/fake/faults.ts';
import { FakeProvider } from '../../../providers/fake/provider.ts';
import { systemClock, until } from '../../../src/base/time.ts';
import type { LaunchRequest } from '../../../src/cloud/contract.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { Launcher } from '../../../src/sandbox/launcher.ts';
import { TemplateKeeper } from '../../../src/sandbox/templates.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';

const signal = AbortSignal.timeout(20_000);
const shape = { cpuMillis: 1000, memoryBytes: 2 ** 28, diskBytes: 0 };
const config = { ...configSchema.parse({}).reconciler, retryInitial: 5, retryMax: 10 };
const request = (token: string): LaunchRequest => ({ token, tags: {}, shape, userData: '{}' });

let faults: FaultPlan;
let provider: FakeProvider;
let templates: TemplateKeeper;
let launcher: Launcher;

beforeEach(() => {
  faults = new FaultPlan();
  const context = { log: nullLogger, clock: systemClock, stateDir: '', guestImageDir: '', owner: {} };
  provider = new FakeProvider(parseFake({}), context, faults);
  templates = new TemplateKeeper({
    cloning: provider.clone,
    config,
    waitMs: 5000,
    clock: systemClock,
    log: nullLogger,
  });
  launcher = new Launcher({ provider, config, clock: systemClock, log: nullLogger, templates });
});
afterEach(async () => {
  await templates[Symbol.asyncDispose]();
  await provider[Symbol.asyncDispose]();
});

const prepared = async (): Promise<void> => {
  await until(async () => ((await provider.clone.list(signal)).length > 0 ? true : undefined), { everyMs: 2, signal });
};

test('without a template the machine boots, and the next one of its size is a clone', async () => {
  faults.add({ call: 'prepare', kind: 'transient', times: 2 });
  expect((await launcher.launch(request('a'), false, signal)).start).toBe('boot');
  expect([...launcher.coldBoots]).toEqual([['no-template', 1]]);
  await prepared();
  expect((await launcher.launch(request('b'), false, signal)).start).toBe('clone');
});

test('a launch waits for the template that is being built, and is a clone of it', async () => {
  expect((await launcher.launch(request('a'), false, signal)).start).toBe('clone');
  const other = { ...request('b'), shape: { ...shape, memoryBytes: 2 ** 30 } };
  expect((await launcher.launch(other, false, signal)).start).toBe('clone');
  expect(launcher.coldBoots.size).toBe(0);
});

test('a launch that nobody waits for waits for the template, however short others would', async () => {
  const prepare: typeof provider.clone.prepare = async (...request) => {
    await systemClock.sleep(50, signal);
    return await provider.clone.prepare(...request);
  };
  const cloning = { ...provider.clone, prepare };
  await using hasty = new TemplateKeeper({ cloning, config, waitMs: 0, clock: systemClock, log: nullLogger });
  const over = new Launcher({ provider, config, clock: systemClock, log: nullLogger, templates: hasty });
  expect((await over.launch(request('a'), false, signal)).start).toBe('boot');
  expect((await over.launch(request('b'), true, signal)).start).toBe('clone');
});

test('a clone that fails once is tried again, one that fails twice boots, under the same token', async () => {
  templates.want(shape);
  await prepared();
  faults.add({ call: 'launch', kind: 'transient', times: 1 });
  expect((await launcher.launch(request('a'), false, signal)).start).toBe('clone');
  faults.add({ call: 'launch', kind: 'terminal', times: 2 });
  expect(await launcher.launch(request('b'), false, signal)).toMatchObject({ start: 'boot', token: 'b' });
  expect([...launcher.coldBoots]).toEqual([['terminal', 1]]);
});

test('with sharing switched off nothing is cloned', async () => {
  await provider.clone.prepare(shape, signal);
  const cold = new Launcher({ provider, config, clock: systemClock, log: nullLogger, templates: undefined });
  expect((await cold.launch(request('a'), false, signal)).start).toBe('boot');
  expect(cold.coldBoots.size).toBe(0);
});

test('what is wrong with the boot is told', async () => {
  faults.add({ call: 'launch', kind: 'quota', times: 3 });
  await expect(launcher.launch(request('a'), false, signal)).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    cause: expect.any(FakeError),
  });
});
