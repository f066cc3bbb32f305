/** Which templates are found, and which go: over directories that look like templates, without an emulator. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseConfig } from '../../providers/qemu/config.ts';
import { Reservations } from '../../providers/qemu/reservations.ts';
import { TEMPLATE_FILES, writeTemplate } from '../../providers/qemu/template-files.ts';
import { type Ground, Templates } from '../../providers/qemu/templates.ts';
import { systemClock } from '../../src/base/time.ts';
import { type Logger, nullLogger } from '../../src/telemetry/log.ts';

const signal = AbortSignal.timeout(60_000);
const SHAPE = { cpuMillis: 1000, memoryBytes: 448 * 2 ** 20, diskBytes: 2 ** 30 };
const DAY = 86_400_000;

let root: string;
let now: number;
/** Templates whose building fails at once: there is no such emulator. */
function templates(log = nullLogger): Templates {
  const config = parseConfig({
    binary: '/nonexistent/qemu',
    imageTool: '/nonexistent/qemu-img',
    cgroup: 'infralet-test-templates',
  });
  return new Templates({
    root,
    config,
    clock: { ...systemClock, now: () => now },
    log,
    reservations: new Reservations(config),
    ground: async () => ground(),
    clones: async () => 0,
  });
}

function ground(changes: Partial<Ground> = {}): Ground {
  const image = { identity: 'image one', scratchBytes: 0 } as Ground['image'];
  return { image, accel: 'tcg', tscKhz: 2_000_000, commandLine: 'quiet', qemuVersion: '7.2', ...changes };
}

/** Under the id that the provider itself gives it. */
async function build(): Promise<string> {
  let id = '';
  const log: Logger = { ...nullLogger, info: (_message, fields) => (id = String(fields?.['template'])) };
  await expect(templates(log).prepare(SHAPE, signal)).rejects.toThrow();
  return await put(id, 'inputs');
}

async function put(id: string, inputs: string): Promise<string> {
  const dir = join(root, id);
  await mkdir(dir);
  for (const name of Object.values(TEMPLATE_FILES)) await writeFile(join(dir, name), '');
  const size = { vcpus: 1, memoryMiB: 512, diskMiB: 1024 };
  await writeTemplate(dir, { inputs, class: size, tscKhz: 2_000_000, builtAt: now, buildMs: 1 });
  return id;
}

const present = async (): Promise<readonly string[]> => (await readdir(root)).filter((name) => name !== 'new').sort();

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'infralet-templates-'));
  await mkdir(join(root, 'new'));
  now = Date.now();
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

describe('templates', () => {
  test('are found by what they were made of: anything else that is installed now needs another', async () => {
    const id = await build();
    expect((await templates().find(SHAPE, ground())).id).toBe(id);
    const other = { ...ground().image, identity: 'image with another agent' };
    for (const changed of [
      { image: other },
      { qemuVersion: '8.2' },
      { commandLine: 'debug' },
      { accel: 'kvm' },
    ] as const) {
      await expect(templates().find(SHAPE, ground(changed))).rejects.toThrow(/no template/);
    }
    await expect(templates().find({ ...SHAPE, memoryBytes: 2 ** 30 }, ground())).rejects.toThrow(/no template/);
    expect(await present()).toEqual([id]);
  });

  test('of an older image or emulator go when one of the new kind is used', async () => {
    const old = await put('0123456789ab', 'other inputs');
    const id = await build();
    await templates().used(id, false);
    expect(await present()).toEqual([old, id].sort());
    await templates().used(id, true);
    expect(await present()).toEqual([id]);
  });

  test('that nobody used for a day go; the use is remembered by the next daemon', async () => {
    const id = await build();
    const idle = await put('0123456789ab', 'inputs');
    now += DAY - 1000;
    await templates().used(idle, true);
    now += DAY - 2000;
    await templates().used(id, true);
    expect(await present()).toEqual([idle, id].sort());
    now += 3000;
    await templates().used(id, true);
    expect(await present()).toEqual([id]);
  });
});
