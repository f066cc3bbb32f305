/** Pure parts of the QEMU provider. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { kernelCommandLine, memoryMiB, qemuArguments, vcpus } from '../../providers/qemu/arguments.ts';
import { cgroupDirs, limitFiles } from '../../providers/qemu/cgroup.ts';
import { parseConfig } from '../../providers/qemu/config.ts';
import { consoleText, ringSize } from '../../providers/qemu/console.ts';
import { classify } from '../../providers/qemu/errors.ts';
import { checkShape } from '../../providers/qemu/launch.ts';
import { Qmp, type QmpEvent } from '../../providers/qemu/qmp.ts';
import {
  isMachineId,
  type MachineRecord,
  machineFiles,
  machineId,
  readRecord,
  tapName,
  writeRecord,
} from '../../providers/qemu/record.ts';
import { Reservations } from '../../providers/qemu/reservations.ts';
import { tinyInitramfs } from '../../providers/qemu/tiny-guest.ts';
import { bestFrequency } from '../../providers/qemu/tsc.ts';
import { InfraletError } from '../../src/base/errors.ts';
import { parseInstanceId } from '../../src/base/ids.ts';
import { identify, isAlive } from '../../src/base/process-identity.ts';
import { loadProvider } from '../../src/cloud/loader.ts';

const config = parseConfig({});
const shape = { cpuMillis: 1500, memoryBytes: 300 * 2 ** 20 + 1, diskBytes: 0 };
const id = machineId('/var/lib/infralet/machines', 'token-1');
const record: MachineRecord = {
  version: 1,
  id,
  token: 'token-1',
  tags: { a: 'b' },
  shape,
  launchedAt: 1,
  accel: 'tcg',
  port: 40_000,
  uid: 621_003,
  tap: tapName(id),
  cgroup: `infralet/${id}`,
};
const start = { kind: 'boot' } as const;
const image = {
  kernel: '/i/vmlinux',
  initramfs: '/i/initramfs',
  rootfs: '/i/root,fs',
  scratch: '/i/scratch',
  scratchBytes: 1,
  commandLine: 'console=ttyS0',
  commandLineTcg: 'tsc=reliable',
  identity: 'i',
};

let dir = '';
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'infralet-unit-'));
});
afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

describe('configuration', () => {
  test('has compiled defaults, and names every wrong key with its path', () => {
    expect(config).toMatchObject({ accel: 'auto', probeTimeout: 10_000, consoleSize: 65_536, uidFirst: 621_000 });
    expect(() => parseConfig({ acel: 'kvm', killGrace: '3 parsecs' })).toThrow(
      /providers\.qemu\.killGrace: .*has no unit.*providers\.qemu.*acel/s,
    );
    expect(() => parseConfig({ uidFirst: 0 })).toThrow(/providers\.qemu\.uidFirst/);
  });
});

describe('loading a provider', () => {
  test('by the name of a folder; anything else is an error that says what to do', async () => {
    expect((await loadProvider('qemu')).name).toBe('qemu');
    await expect(loadProvider('no-such-provider')).rejects.toThrow(/there is no provider named no-such-provider/);
    await expect(loadProvider('../../etc/passwd')).rejects.toThrow(/neither a provider nor an npm package/);
    await expect(loadProvider('zod')).rejects.toThrow(/is not a provider: provider/);
  });
});

describe('command line', () => {
  test('whole processors for a share, within host and configuration', () => {
    expect(vcpus({ ...shape, cpuMillis: 1 }, config, 8)).toBe(1);
    expect(vcpus({ ...shape, cpuMillis: 1001 }, config, 8)).toBe(2);
    expect(vcpus({ ...shape, cpuMillis: 64_000 }, config, 8)).toBe(8);
    expect(vcpus({ ...shape, cpuMillis: 64_000 }, { ...config, maxVcpus: 3 }, 8)).toBe(3);
    expect(memoryMiB(shape)).toBe(301);
  });

  test('carries the machine and nothing that a path could smuggle in', () => {
    const files = machineFiles('/var/lib/odd,path', id);
    const args = qemuArguments({ record, files, commandLine: 'console=ttyS0 x=1', start }, image, config);
    const option = (flag: string): string | undefined => args[args.indexOf(flag) + 1];
    expect(option('-name')).toBe(`guest=infralet-${id}`);
    expect(option('-m')).toBe('301M');
    expect(option('-append')).toBe('console=ttyS0 x=1');
    expect(option('-runas')).toBe('621003:621003');
    expect(option('-qmp')).toBe(`unix:/var/lib/odd,,path/${id}/qmp.sock,server=on,wait=off`);
    expect(args.join(' ')).toContain('restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:40000-:7443');
    expect(args.join(' ')).toContain(`ifname=inf${id},script=no,downscript=no`);
    const disks = args.filter((_, index) => args[index - 1] === '-blockdev').map((text) => JSON.parse(text) as object);
    expect(disks).toMatchObject([
      { 'node-name': 'root', 'read-only': true, file: { filename: '/i/root,fs', locking: 'off' } },
      { 'node-name': 'scratch', backing: { 'read-only': true } },
    ]);
    expect(
      qemuArguments({ record, files, commandLine: '', start }, image, { ...config, sandbox: false }),
    ).not.toContain('-sandbox');
  });

  test('an emulated kernel is told what it cannot measure', () => {
    expect(kernelCommandLine(image, 'kvm', 5)).toBe('console=ttyS0');
    expect(kernelCommandLine(image, 'tcg', 2_596_120)).toBe('console=ttyS0 tsc=reliable tsc_early_khz=2596120');
    expect(kernelCommandLine({ ...image, commandLineTcg: '' }, 'tcg', undefined)).toBe('console=ttyS0');
  });

  test('the frequency comes from the reading that was disturbed least', () => {
    const round = (...words: readonly number[]): Buffer => {
      const bytes = Buffer.alloc(64);
      for (const [index, word] of words.entries()) bytes.writeBigUInt64LE(BigInt(word), index * 8);
      return bytes;
    };
    const clean = round(1000, 5, 0, 1010, 2_001_000, 5, 1_000_000, 2_001_010);
    const disturbed = round(1000, 5, 0, 901_010, 2_001_000, 5, 1_000_000, 2_001_010);
    expect(bestFrequency([disturbed, clean, disturbed])).toBe(2_000_000);
  });
});

describe('cgroup limits', () => {
  const limits = { shareMillis: 1000, quotaMillis: 1250, memoryBytes: 2 ** 28, maxThreads: 99 };
  test('are the same in both hierarchies', () => {
    expect(limitFiles(2, limits)).toEqual([
      ['', 'cpu.max', '125000 100000'],
      ['', 'cpu.weight', '39'],
      ['', 'memory.max', '268435456'],
      ['', 'pids.max', '99'],
    ]);
    expect(limitFiles(1, limits)).toContainEqual(['cpu', 'cpu.cfs_quota_us', '125000']);
    expect(limitFiles(1, limits)).toContainEqual(['cpu', 'cpu.shares', '1024']);
    expect(cgroupDirs(1, 'infralet/x')).toContain('/sys/fs/cgroup/memory/infralet/x');
    expect(cgroupDirs(2, 'infralet/x')).toEqual(['/sys/fs/cgroup/infralet/x']);
  });

  test('stay in the kernel’s range for every share', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e7 }), (millis) => {
        const found = Object.fromEntries(
          ([1, 2] as const).flatMap((version) =>
            limitFiles(version, { ...limits, shareMillis: millis, quotaMillis: millis }).map(([, file, value]) => [
              file,
              value,
            ]),
          ),
        );
        expect(Number(found['cpu.weight'])).toBeGreaterThanOrEqual(1);
        expect(Number(found['cpu.weight'])).toBeLessThanOrEqual(10_000);
        expect(Number(found['cpu.shares'])).toBeGreaterThanOrEqual(2);
        expect(Number(found['cpu.cfs_quota_us'])).toBeGreaterThanOrEqual(1000);
      }),
    );
  });
});

describe('records', () => {
  test('come back as they were written; what is not one is told apart from what is not there', async () => {
    const files = machineFiles(dir, id);
    expect(await readRecord(files)).toEqual({ kind: 'none' });
    await mkdir(files.dir);
    await writeRecord(files, record);
    expect(await readRecord(files)).toEqual({ kind: 'record', record });
    await writeFile(files.record, JSON.stringify({ ...record, port: 'x' }));
    expect(await readRecord(files)).toMatchObject({ kind: 'broken', problem: expect.stringContaining('port') });
  });

  test('ids follow from the token, fit a network device, and name no path', () => {
    fc.assert(
      fc.property(fc.string(), fc.string(), (one, two) => {
        const made = machineId('/state', one);
        expect(isMachineId(made)).toBe(true);
        expect(tapName(made).length).toBeLessThanOrEqual(15);
        expect(made === machineId('/state', two)).toBe(one === two);
      }),
    );
    for (const bad of ['', '..', '../../etc', '0123456789AB', '0123456789abc', '/'])
      expect(isMachineId(bad)).toBe(false);
  });

  test('shapes that can never work are refused', () => {
    expect(() => checkShape(shape)).not.toThrow();
    for (const bad of [
      { ...shape, memoryBytes: 1 },
      { ...shape, cpuMillis: Number.NaN },
      { ...shape, diskBytes: -1 },
    ]) {
      expect(() => checkShape(bad)).toThrow(InfraletError);
    }
  });
});

describe('reservations', () => {
  test('no two machines share a port or a user, and the users run out with a clear error', async () => {
    const reservations = new Reservations({ uidFirst: 1000, uidCount: 3 });
    const names = ['a', 'b', 'c'].map(parseInstanceId);
    const taken = await Promise.all(names.map(async (name) => await reservations.take(name)));
    expect(new Set(taken.map(({ port }) => port)).size).toBe(3);
    expect(new Set(taken.map(({ uid }) => uid))).toEqual(new Set([1000, 1001, 1002]));
    await expect(reservations.take(parseInstanceId('d'))).rejects.toThrow(/all 3 users for machines are in use/);
    const again = await reservations.take(parseInstanceId('b'));
    expect(again.uid).toBe(taken[1]?.uid);
    reservations.release(parseInstanceId('a'));
    expect((await reservations.take(parseInstanceId('d'))).uid).toBe(taken[0]?.uid);
  });
});

describe('console', () => {
  test('is text without control characters, cut to its end', () => {
    expect(ringSize(65_536)).toBe(65_536);
    expect(ringSize(65_537)).toBe(131_072);
    expect(consoleText(Buffer.from('one\r\n\u001b[31mred\u0000\u009b\n'), 100)).toBe('one\n[31mred\n');
    expect(consoleText(Buffer.from('0123456789'), 4)).toBe('6789');
  });
});

describe('processes', () => {
  test('are known by number and start time', async () => {
    const self = await identify(process.pid);
    expect(self?.startTime).toMatch(/^\d+$/);
    expect(self && (await isAlive(self))).toBe(true);
    expect(await isAlive({ pid: process.pid, startTime: '1' })).toBe(false);
    expect(await identify(2 ** 22 + 1)).toBeUndefined();
  });
});

describe('tiny guest', () => {
  test('is a cpio archive that starts with an executable /init', () => {
    const archive = tinyInitramfs();
    expect(archive.subarray(0, 6).toString()).toBe('070701');
    expect(archive.length % 4).toBe(0);
    expect(archive.subarray(110, 114).toString()).toBe('init');
    expect(archive.indexOf('\u007fELF')).toBeGreaterThan(0);
    expect(archive.includes('TRAILER!!!')).toBe(true);
  });
});

describe('faults', () => {
  test('are told apart', () => {
    expect(classify(new InfraletError('INVALID_ARGUMENT', 'x')).kind).toBe('invalid');
    expect(classify(new InfraletError('RESOURCE_EXHAUSTED', 'x')).kind).toBe('quota');
    expect(classify(new InfraletError('FAILED_PRECONDITION', 'x', { hint: 'do y' }))).toEqual({
      kind: 'unsupported',
      message: 'x; do y',
    });
    expect(classify(Object.assign(new Error('x'), { code: 'ENOSPC' })).kind).toBe('no-capacity');
    expect(classify(new InfraletError('UNAVAILABLE', 'QEMU: Cannot allocate memory')).kind).toBe('no-capacity');
    expect(classify(AbortSignal.abort().reason).kind).toBe('transient');
  });
});

describe('control protocol', () => {
  let server: Server | undefined;
  const signal = AbortSignal.timeout(20_000);
  /** A peer that greets and then answers each line as told. */
  const peer = async (answer: (line: { execute: string; id: number }) => string | undefined): Promise<string> => {
    const path = join(dir, 'qmp');
    server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.write('{"QMP": {"version": {}}}\r\n');
      socket.on('data', (data) => {
        for (const line of String(data).split('\n').filter(Boolean)) {
          const asked = JSON.parse(line) as { execute: string; id: number };
          const reply =
            asked.execute === 'qmp_capabilities' ? JSON.stringify({ return: {}, id: asked.id }) : answer(asked);
          if (reply !== undefined) socket.write(`${reply}\n`);
        }
      });
    }).listen(path);
    return path;
  };
  const open = async (path: string, onEvent: (event: QmpEvent) => void = () => undefined): Promise<Qmp> =>
    await Qmp.connect(path, { timeoutMs: 300, onEvent, signal });
  afterEach(() => server?.close());

  test('answers find their command, refusals are errors, events are passed on', async () => {
    const events: QmpEvent[] = [];
    const path = await peer(({ execute, id: number }) => {
      if (execute === 'bad')
        return JSON.stringify({ id: number, error: { class: 'GenericError', desc: 'no such thing' } });
      const event = JSON.stringify({ event: 'SHUTDOWN', data: { reason: 'guest-reset' }, timestamp: {} });
      return `${event}\n${JSON.stringify({ id: number, return: { asked: execute } })}`;
    });
    using qmp = await open(path, (event) => events.push(event));
    expect(await Promise.all(['a', 'b'].map(async (name) => await qmp.execute(name, {}, signal)))).toEqual([
      { asked: 'a' },
      { asked: 'b' },
    ]);
    await expect(qmp.execute('bad', {}, signal)).rejects.toThrow('QEMU: no such thing (GenericError)');
    expect(events).toContainEqual({ name: 'SHUTDOWN', data: { reason: 'guest-reset' } });
  });

  test('a peer that is silent, garbles or floods costs its connection and nothing else', async () => {
    using silent = await open(await peer(() => undefined));
    await expect(silent.execute('x', {}, signal)).rejects.toThrow(/took longer than 300 ms/);
    server?.close();
    await rm(join(dir, 'qmp'), { force: true });

    using garbled = await open(await peer(() => 'not json'));
    await expect(garbled.execute('x', {}, signal)).rejects.toThrow(/closed its control connection/);
    await garbled.closed;
    await expect(garbled.execute('x', {}, signal)).rejects.toThrow(/gone/);
    server?.close();
    await rm(join(dir, 'qmp'), { force: true });

    const flood = await peer(() => 'x'.repeat(9 * 2 ** 20));
    using flooded = await Qmp.connect(flood, { timeoutMs: 10_000, onEvent: () => undefined, signal });
    await expect(flooded.execute('x', {}, signal)).rejects.toThrow(/closed its control connection/);
  });
});
