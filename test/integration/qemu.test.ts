/** The QEMU provider with real emulators: ends, kills, restarts, half-made machines. Needs root. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { QemuProvider } from '../../providers/qemu/provider.ts';
import { machineFiles, machineId, readRecord } from '../../providers/qemu/record.ts';
import { MARKER } from '../../providers/qemu/tiny-guest.ts';
import { InfraletError } from '../../src/base/errors.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import { systemClock, until } from '../../src/base/time.ts';
import type { Instance } from '../../src/cloud/contract.ts';
import { GUEST_IMAGE_TIMEOUT_MS, guestImage } from '../support/guest.ts';
import { endChild } from '../support/pod-wire.ts';
import { deviceExists, processes, type QemuPlace, qemuPlace, tinyImage } from '../support/qemu.ts';

const signal = AbortSignal.timeout(900_000);
const CHILD = fileURLToPath(new URL('../support/qemu-child.ts', import.meta.url));
const SHAPE = { cpuMillis: 1000, memoryBytes: 256 * 2 ** 20, diskBytes: 0 };

let place: QemuPlace;
let provider: QemuProvider;

const launch = async (token: string, tags: Record<string, string> = {}): Promise<Instance> => {
  const [result] = await provider.launch([{ token, tags, shape: SHAPE, userData: '{"secret":"s3cr3t"}' }], signal);
  if (!result?.ok) throw InfraletError.from(result?.error);
  return result.instance;
};
const state = async (id: InstanceId): Promise<string> =>
  (await provider.describe({ by: 'ids', ids: [id] }, signal))[0]?.state ?? 'absent';
const files = (id: InstanceId) => machineFiles(join(place.stateDir, 'machines'), id);
const pidOf = async (id: InstanceId): Promise<number> => {
  const read = await readRecord(files(id));
  return read.kind === 'record' ? (read.record.process?.pid ?? 0) : 0;
};
/** The reason, once the machine has ended and that is written down. */
const ended = async (id: InstanceId): Promise<string> =>
  await until(
    async () => {
      const read = await readRecord(files(id));
      return read.kind === 'record' ? read.record.stopped?.reason : undefined;
    },
    { everyMs: 20, signal },
  );
/** A stand-in for the emulator: a shell script that gets the real one as $QEMU. */
const wrapper = async (script: string): Promise<void> => {
  const path = join(place.dir, 'qemu-wrapper');
  await writeFile(path, `#!/bin/sh\nQEMU=qemu-system-x86_64\n${script}\n`);
  await chmod(path, 0o755);
  place.section['binary'] = path;
};
const reopen = async (): Promise<void> => {
  await provider[Symbol.asyncDispose]();
  provider = await place.open(signal);
};

beforeAll(guestImage, GUEST_IMAGE_TIMEOUT_MS);
beforeEach(async () => {
  place = await qemuPlace();
  provider = await place.open(signal);
});
afterEach(async () => {
  const ids = (await readdir(join(place.stateDir, 'machines'))).map((name) => name as InstanceId);
  await provider.terminate(ids, signal);
  expect(await place.leftovers()).toEqual([]);
  for (const id of ids) expect(await deviceExists(`inf${id}`)).toBe(false);
  await provider[Symbol.asyncDispose]();
  await place[Symbol.asyncDispose]();
});

describe('a machine of its own', () => {
  test('runs as nobody in particular, under a filter, in its cgroup, with a tap, without its secret on disk', async () => {
    const [one, two] = [await launch('one'), await launch('two')];
    const uids = await Promise.all(
      [one, two].map(async ({ id }) => {
        const status = await readFile(`/proc/${await pidOf(id)}/status`, 'utf8');
        const field = (name: string): string => new RegExp(`^${name}:\\s+(.*)$`, 'm').exec(status)?.[1] ?? '';
        expect(field('CapEff')).toMatch(/^0+$/);
        expect(field('NoNewPrivs')).toBe('1');
        expect(field('Seccomp')).toBe('2');
        expect(field('Groups').trim()).toMatch(/^(\d*)$/);
        return Number(field('Uid').split('\t')[0]);
      }),
    );
    expect(Math.min(...uids)).toBeGreaterThanOrEqual(621_000);
    expect(uids[0]).not.toBe(uids[1]);
    expect(one.agent?.port).not.toBe(two.agent?.port);
    const pid = await pidOf(one.id);
    const cgroup = `${place.cgroup}/${one.id}`;
    expect(await readFile(`/proc/${pid}/cgroup`, 'utf8')).toContain(cgroup);
    expect(await deviceExists(one.podLink?.kind === 'tap' ? one.podLink.device : '')).toBe(true);
    expect(await readdir(files(one.id).dir)).not.toContain('user-data');
    expect(JSON.stringify(await readFile(`/proc/${pid}/cmdline`, 'utf8'))).not.toContain('s3cr3t');
    expect(await readFile(`/proc/${pid}/limits`, 'utf8')).toMatch(/Max core file size\s+0\s+0/);
  });

  test('that ends itself is noticed, with reason and last words, and its memory goes back', async () => {
    place.imageDir = await tinyImage(place.dir);
    await reopen();
    const { id } = await launch('self-ending');
    const pid = await pidOf(id);
    expect(await ended(id)).toBe('the guest rebooted or its kernel panicked');
    await until(async () => ((await processes(place.dir)).length === 0 ? true : undefined), { everyMs: 20, signal });
    expect(pid).toBeGreaterThan(1);
    expect(await provider.describe({ by: 'ids', ids: [id] }, signal)).toMatchObject([
      { state: 'stopped', reason: 'the guest rebooted or its kernel panicked' },
    ]);
    expect(await provider.console(id, 2000, signal)).toContain(MARKER);
    await reopen();
    expect(await state(id)).toBe('stopped');
    expect(await provider.console(id, 2000, signal)).toContain(MARKER);
    expect(await ended(id)).toBe('the guest rebooted or its kernel panicked');
  });

  test('keeps no more of the console than configured, and the end of it', async () => {
    place.imageDir = await tinyImage(place.dir);
    place.section['consoleSize'] = '1Ki';
    await reopen();
    const { id } = await launch('talker');
    await ended(id);
    const text = await provider.console(id, 1_000_000, signal);
    expect(text.length).toBeLessThanOrEqual(1024);
    expect((await readFile(files(id).console)).length).toBe(1024);
    expect(text).toContain('reboot: machine restart');
  });

  test('whose emulator is killed is noticed at once', async () => {
    const { id } = await launch('victim');
    process.kill(await pidOf(id), 'SIGKILL');
    expect(await ended(id)).toBe('the emulator ended: ended by signal SIGKILL');
    expect(await state(id)).toBe('stopped');
    expect((await launch('victim')).state).toBe('stopped');
  });
});

describe('an emulator that does not start', () => {
  test('is quoted in the error, and nothing stays', async () => {
    await wrapper('echo "qemu: the moon is in the wrong house" >&2; exit 3');
    await reopen();
    await expect(launch('unlucky')).rejects.toThrow(/exit code 3: qemu: the moon is in the wrong house/);
    expect(await place.leftovers()).toEqual([]);
  });

  test('that never answers is given up after the time limit', async () => {
    await wrapper('exec sleep 1000 # "$@"');
    place.section['readyTimeout'] = '300ms';
    await reopen();
    const error = await launch('mute').catch((thrown: unknown) => thrown);
    expect(String(error)).toMatch(/took longer than 300 ms/);
    expect(provider.classify(error).kind).toBe('transient');
    expect(await place.leftovers()).toEqual([]);
  });

  test('for a port taken in between is started again with another', async () => {
    const flag = join(place.dir, 'tried');
    await wrapper(
      `case "$*" in *hostfwd=*) ;; *) exec $QEMU "$@";; esac\nif [ ! -e ${flag} ]; then echo "$*" > ${flag}; echo "Could not set up host forwarding rule" >&2; exit 1; fi\nexec $QEMU "$@"`,
    );
    await reopen();
    const { agent } = await launch('second-try');
    const first = /hostfwd=tcp:127\.0\.0\.1:(\d+)/.exec(await readFile(flag, 'utf8'))?.[1];
    expect(first).toBeDefined();
    expect(agent?.port).not.toBe(Number(first));
  });
});

describe('a daemon that is killed', () => {
  const start = async (token: string): Promise<{ child: ChildProcess; lines: AsyncIterator<string> }> => {
    const args = [CHILD, place.stateDir, place.imageDir, JSON.stringify(place.section), token];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    return { child, lines: createInterface({ input: child.stdout })[Symbol.asyncIterator]() };
  };

  test('leaves its machines running; the next one finds, watches and ends them', async () => {
    const { child, lines } = await start('survivor');
    await lines.next();
    const { id } = JSON.parse(String((await lines.next()).value)) as Instance;
    await endChild(child);
    const pid = await pidOf(id);
    await reopen();
    expect(await provider.describe({ by: 'tags', tags: { test: 'child' } }, signal)).toMatchObject([
      { id, state: 'running', token: 'survivor' },
    ]);
    expect((await launch('survivor')).id).toBe(id);
    expect(await pidOf(id)).toBe(pid);
    await until(async () => ((await provider.console(id, 2000, signal)) === '' ? undefined : true), {
      everyMs: 50,
      signal,
    });
    process.kill(pid, 'SIGKILL');
    expect(await ended(id)).toMatch(/^the emulator ended/);
  });

  test('hears of a guest that ended while nobody watched', async () => {
    place.imageDir = await tinyImage(place.dir);
    const { child, lines } = await start('lonely');
    await lines.next();
    const { id } = JSON.parse(String((await lines.next()).value)) as Instance;
    await endChild(child);
    // Paused by its emulator: there, but without using the processor any more.
    const pid = await pidOf(id);
    const ticks = async (): Promise<number> => {
      const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(' ');
      return Number(fields[13]) + Number(fields[14]);
    };
    let last = -1;
    await until(
      async () => {
        const now = await ticks();
        const still = now === last && now > 50;
        last = now;
        return still ? true : undefined;
      },
      { everyMs: 500, signal },
    );
    await reopen();
    expect(await ended(id)).toBe('the guest ended while the daemon was away');
    expect(await provider.console(id, 2000, signal)).toContain(MARKER);
  });

  test('at any instruction of a launch leaves nothing that cannot be removed, and the launch can be repeated', async () => {
    for (const delay of [0, 10, 20, 30, 45, 60, 80, 100, 130, 170]) {
      const token = `cut-${delay}`;
      const { child, lines } = await start(token);
      await lines.next();
      await systemClock.sleep(delay, signal);
      await endChild(child);
      await reopen();
      const again = await launch(token);
      expect(again.state).toBe('running');
      expect(await processes(place.dir)).toHaveLength(1);
      await provider.terminate([again.id], signal);
      expect(await place.leftovers()).toEqual([]);
    }
  });

  test('between record and process leaves a machine that is described and can be terminated', async () => {
    const { id } = await launch('half');
    const record = JSON.parse(await readFile(files(id).record, 'utf8')) as Record<string, unknown>;
    await provider[Symbol.asyncDispose]();
    // As if the daemon had died before it wrote down the process, which goes on.
    await writeFile(files(id).record, JSON.stringify({ ...record, process: undefined }));
    provider = await place.open(signal);
    expect(await provider.describe({ by: 'ids', ids: [id] }, signal)).toMatchObject([
      { state: 'stopped', reason: 'its launch was interrupted' },
    ]);
    await provider.terminate([id], signal);
    expect(await place.leftovers()).toEqual([]);
  });
});

describe('damage', () => {
  test('garbage in a record is reported, stops no other machine, and can be terminated', async () => {
    const [good, bad] = [await launch('good', { k: 'v' }), await launch('bad', { k: 'v' })];
    await writeFile(files(bad.id).record, '{"version":1,"id":');
    await reopen();
    expect((await provider.describe({ by: 'tags', tags: { k: 'v' } }, signal)).map(({ id }) => id)).toEqual([good.id]);
    expect(await provider.doctor(signal)).toContainEqual(
      expect.objectContaining({ name: `machine ${bad.id}`, ok: false, fix: expect.any(String) }),
    );
    const error = await launch('bad').catch((thrown: unknown) => thrown);
    expect(provider.classify(error).kind).toBe('terminal');
    await provider.terminate([bad.id], signal);
    expect(await processes(place.dir)).toHaveLength(1);
    expect((await launch('bad')).state).toBe('running');
  });

  test('a directory without a record goes when the provider opens', async () => {
    const id = machineId(join(place.stateDir, 'machines'), 'never');
    await mkdir(files(id).dir);
    await reopen();
    expect(await readdir(join(place.stateDir, 'machines'))).toEqual([]);
  });

  test("another process with a machine's old number is left alone", async () => {
    const { id } = await launch('reborn');
    const bystander = spawn('sleep', ['1000'], { stdio: 'ignore' });
    await once(bystander, 'spawn');
    const record = JSON.parse(await readFile(files(id).record, 'utf8')) as { process: object };
    await provider[Symbol.asyncDispose]();
    const stolen = { ...record, process: { ...record.process, pid: bystander.pid } };
    await writeFile(files(id).record, JSON.stringify(stolen));
    provider = await place.open(signal);
    expect(await state(id)).toBe('stopped');
    await provider.terminate([id], signal);
    expect(bystander.exitCode).toBeNull();
    expect(bystander.signalCode).toBeNull();
    expect(await place.leftovers()).toEqual([]);
    await endChild(bystander);
  });
});

describe('the choice of the accelerator', () => {
  test('never takes a KVM under which no guest boots, says so within the limit, and remembers', async () => {
    await wrapper('case "$*" in *"-accel kvm"*) exec sleep 1000;; esac\nexec $QEMU "$@"');
    place.section['accel'] = 'auto';
    place.section['probeTimeout'] = '700ms';
    await reopen();
    const started = performance.now();
    const verdict = (await provider.doctor(signal)).find(({ name }) => name === 'accelerator');
    expect(performance.now() - started).toBeLessThan(10_000);
    expect(verdict).toMatchObject({ ok: true, detail: expect.stringMatching(/^software emulation: /) });
    expect(verdict?.detail).toMatch(/did not boot within 700 ms|there is no \/dev\/kvm/);
    expect((await launch('emulated')).state).toBe('running');
    const again = performance.now();
    expect((await provider.doctor(signal)).find(({ name }) => name === 'accelerator')).toEqual(verdict);
    expect(performance.now() - again).toBeLessThan(600);
  });

  test('probes this host for real: KVM is used exactly when a guest was seen to boot', async () => {
    place.section['accel'] = 'auto';
    await reopen();
    const verdict = (await provider.doctor(signal)).find(({ name }) => name === 'accelerator');
    expect(verdict?.detail).toMatch(/^(KVM: a guest booted in \d+ ms|software emulation: .+)$/);
    const { id } = await launch('probed');
    const command = await readFile(`/proc/${await pidOf(id)}/cmdline`, 'utf8');
    expect(command.includes('\0-accel\0kvm\0')).toBe(verdict?.detail.startsWith('KVM') === true);
  });
});
