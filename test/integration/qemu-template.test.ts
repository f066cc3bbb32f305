/** Templates and clones with real emulators and the real guest image. Needs root. */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { QemuProvider } from '../../providers/qemu/provider.ts';
import { InfraletError } from '../../src/base/errors.ts';
import { newSandboxId } from '../../src/base/ids.ts';
import { systemClock, until } from '../../src/base/time.ts';
import type { Instance } from '../../src/cloud/contract.ts';
import type { AgentChannel, ChannelDialer } from '../../src/guest/channel.ts';
import { GuestClock } from '../../src/sandbox/guest-clock.ts';
import { AgentWorld } from '../support/agent/machine.ts';
import { GUEST_IMAGE_TIMEOUT_MS, guestImage } from '../support/guest.ts';
import { processes, type QemuPlace, qemuPlace } from '../support/qemu.ts';

const signal = AbortSignal.timeout(900_000);
const TIMEOUT = 240_000;
const SHAPE = { cpuMillis: 1000, memoryBytes: 448 * 2 ** 20, diskBytes: 2 ** 30 };
const calls = { signal, timeoutMs: 60_000 };

let place: QemuPlace;
let provider: QemuProvider;
let world: AgentWorld;
let dialer: ChannelDialer;
const templatesDir = (): string => join(place.stateDir, 'templates');

beforeAll(async () => {
  await guestImage();
  world = await AgentWorld.create();
  dialer = world.dialer(await world.pki());
  place = await qemuPlace();
  provider = await place.open(signal);
}, GUEST_IMAGE_TIMEOUT_MS);
afterEach(async () => {
  const all = await provider.describe({ by: 'tags', tags: {} }, signal);
  await provider.terminate(
    all.map(({ id }) => id),
    signal,
  );
  expect(await place.leftovers()).toEqual([]);
  expect(await readdir(join(templatesDir(), 'new'))).toEqual([]);
});
afterAll(async () => {
  await provider[Symbol.asyncDispose]();
  await world[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

interface Machine {
  readonly instance: Instance;
  readonly channel: AgentChannel;
  /** What the agent showed before it enrolled. */
  readonly firstKey: string;
  readonly serverHello: string;
}

async function launch(start: 'clone' | 'boot', token = randomBytes(8).toString('hex')): Promise<Instance> {
  const request = { token, tags: {}, shape: SHAPE, userData: '{"version":0}', start };
  const [result] = await provider.launch([request], signal);
  if (!result?.ok) throw result?.error;
  return result.instance;
}

async function enrolled(): Promise<Machine> {
  const sandboxId = newSandboxId();
  const token = dialer.newToken();
  const userData = dialer.userData(token, { sandboxId });
  const request = { token: sandboxId, tags: {}, shape: SHAPE, userData, start: 'clone' as const };
  const [result] = await provider.launch([request], signal);
  if (!result?.ok) throw InfraletError.from(result?.error);
  const { instance } = result;
  const { agent } = instance;
  if (!agent) throw new Error('no address');
  const seen = await look(agent);
  const channel = world.use(await dialer.enrol(agent, { sandboxId, instanceId: instance.id }, token, calls));
  return { instance, channel, ...seen };
}

/** The key and the ephemeral share that the agent shows to anybody. */
async function look(agent: { readonly host: string; readonly port: number }) {
  const socket = connect({ ...agent, rejectUnauthorized: false, ALPNProtocols: ['h2'], minVersion: 'TLSv1.3' });
  socket.on('error', () => undefined);
  await once(socket, 'secureConnect', { signal });
  const key = socket.getPeerX509Certificate()?.publicKey.export({ type: 'spki', format: 'der' }).toString('hex') ?? '';
  const finished = socket.getPeerFinished()?.toString('hex') ?? '';
  socket.destroy();
  return { firstKey: key, serverHello: finished };
}

describe('a template', () => {
  test(
    'is made once, is not a machine, and its clones share nothing that must differ',
    async () => {
      await expect(launch('clone')).rejects.toSatisfy((error) => provider.classify(error).kind === 'no-template');
      const [first, second] = await Promise.all([
        provider.clone.prepare(SHAPE, signal),
        provider.clone.prepare(SHAPE, signal),
      ]);
      expect(second.id).toBe(first.id);
      expect(first).toMatchObject({ state: 'ready', clones: 0, shape: { memoryBytes: 512 * 2 ** 20 } });
      expect(await provider.describe({ by: 'tags', tags: {} }, signal)).toEqual([]);
      expect(await place.leftovers()).toEqual([]);

      const [a, b] = await Promise.all([enrolled(), enrolled()]);
      expect([a.instance.start, b.instance.start]).toEqual(['clone', 'clone']);
      expect(await provider.clone.list(signal)).toMatchObject([{ id: first.id, clones: 2 }]);
      expect(a.firstKey).not.toBe(b.firstKey);
      expect(a.serverHello).not.toBe(b.serverHello);
      const [one, two] = [await a.channel.status(calls), await b.channel.status(calls)];
      expect(one.bootId).toMatch(/^[0-9a-f-]{36}$/);
      expect(two.bootId).not.toBe(one.bootId);
      expect((await a.channel.cri('Version', {}, calls)).runtimeName).toBe('containerd');
      for (const { channel } of [a, b]) {
        await new GuestClock(systemClock).configure(channel, { entropy: new Uint8Array(0), hostname: 'node' }, calls);
        const { aheadMs, tookMs } = await closestLook(channel);
        // The guest looks at its clock somewhere between question and answer.
        expect(Math.abs(aheadMs)).toBeLessThan(50 + tookMs / 2);
      }
    },
    TIMEOUT,
  );

  test(
    'survives the daemon; clones of it too',
    async () => {
      const before = await provider.clone.prepare(SHAPE, signal);
      const machine = await launch('clone', 'kept');
      await provider[Symbol.asyncDispose]();
      provider = await place.open(signal);
      expect(await provider.clone.list(signal)).toEqual([{ ...before, clones: 1 }]);
      expect((await launch('boot', 'kept')).id).toBe(machine.id);
      expect((await launch('clone')).start).toBe('clone');
      await provider.clone.remove(before.id, signal);
      expect((await provider.describe({ by: 'ids', ids: [machine.id] }, signal))[0]?.state).toBe('running');
      await provider.clone.remove(before.id, signal);
      await provider.clone.remove('../..', signal);
    },
    TIMEOUT,
  );

  test(
    'that was damaged is not used: the memory is too short, the state is garbage',
    async () => {
      const { id } = await provider.clone.prepare(SHAPE, signal);
      await truncate(join(templatesDir(), id, 'memory'), 4096);
      await expect(launch('clone')).rejects.toSatisfy((error) => provider.classify(error).kind === 'no-template');
      expect(await provider.clone.list(signal)).toEqual([]);
      expect((await launch('boot')).start).toBe('boot');
    },
    TIMEOUT,
  );

  test(
    'whose building is cut leaves nothing that the next run does not remove',
    async () => {
      const building = provider.clone.prepare(SHAPE, signal);
      building.catch(() => undefined);
      await until(async () => ((await processes(place.dir, 'state/templates')).length > 0 ? true : undefined), {
        everyMs: 20,
        signal,
      });
      expect(await provider.clone.list(signal)).toMatchObject([{ state: 'building' }]);
      await provider[Symbol.asyncDispose]();
      await expect(building).rejects.toThrow();
      expect(await processes(place.dir, 'state/templates')).toEqual([]);
      // As a daemon that was killed leaves it: a directory without a record, and one that was about to be published.
      await writeFile(join(templatesDir(), 'stray.new'), '');
      provider = await place.open(signal);
      expect(await readdir(templatesDir())).toEqual(['new']);
    },
    TIMEOUT,
  );
});

/** The look at the guest's clock that took least time. */
async function closestLook(channel: AgentChannel): Promise<ClockLook> {
  let best = await lookAtClock(channel);
  for (let count = 0; count < 10; count += 1) {
    const look = await lookAtClock(channel);
    if (look.tookMs < best.tookMs) best = look;
  }
  return best;
}

interface ClockLook {
  /** Milliseconds by which the guest is ahead, give or take half of `tookMs`. */
  readonly aheadMs: number;
  readonly tookMs: number;
}

async function lookAtClock(channel: AgentChannel): Promise<ClockLook> {
  const before = Date.now();
  const { clockNanos } = await channel.status(calls);
  const tookMs = Date.now() - before;
  return { tookMs, aheadMs: Number(BigInt(clockNanos) / 1_000_000n) - (before + tookMs / 2) };
}
