/** The agent and its machine: status, clock, host name, shutdown, size. The bundle as it runs in the guest image. */
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import { AGENT_NODE_FLAGS, bundleAgent } from '../../../src/guest-image/agent-bundle.ts';
import { AgentWorld, newIdentity, soon } from '../../support/agent/machine.ts';

/** A program that writes its arguments to a file. */
function recorder(dir: string, name: string): { readonly program: string; readonly heard: () => string | undefined } {
  const [program, file] = [join(dir, name), join(dir, `${name}.args`)];
  writeFileSync(program, `#!/bin/sh\nprintf '%s ' "$@" > ${file}\n`);
  chmodSync(program, 0o755);
  return {
    program,
    heard: () => {
      try {
        return readFileSync(file, 'utf8').trim() || undefined;
      } catch {
        return undefined;
      }
    },
  };
}

test('configure sets clock, host name and randomness; wrong values are refused', async () => {
  await using world = await AgentWorld.create();
  const date = recorder(world.dir, 'date');
  const { machine, channel } = await world.enrolled({ args: ['--date', date.program] });
  mkdirSync(join(machine.dir, 'proc/sys/kernel'), { recursive: true });
  mkdirSync(join(machine.dir, 'dev'));
  const clockMs = Date.now() + 3_600_000;
  await channel.configure({ clockMs, entropy: Buffer.alloc(32, 7), hostname: 'web-0' }, soon());
  expect(readFileSync(join(machine.dir, 'proc/sys/kernel/hostname'), 'utf8')).toBe('web-0');
  expect(readFileSync(join(machine.dir, 'dev/urandom')).equals(Buffer.alloc(32, 7))).toBe(true);
  const [, seconds] = /^-s @([\d.]+)$/.exec(date.heard() ?? '') ?? [];
  expect(Math.abs(Number(seconds) * 1000 - clockMs)).toBeLessThan(5000);
  await expect(
    channel.configure({ clockMs: Date.now(), entropy: Buffer.alloc(0), hostname: '../x' }, soon()),
  ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
});

test('the bounds of the pod go to the group of its containers', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const nic = { foundBy: '52:54:00:00:00:02', mac: '02:00:00:00:00:01', mtu: 1500 };
  mkdirSync(join(machine.dir, 'sys/class/net'), { recursive: true });
  const bound = (file: string): string => readFileSync(join(machine.dir, 'sys/fs/cgroup/pod', file), 'utf8');
  await channel.configurePodNic(
    nic,
    { memoryBytes: 2 ** 26, cpuQuota: 50_000, cpuPeriod: 100_000, cpuShares: 0 },
    soon(),
  );
  expect([bound('memory.max'), bound('cpu.max')]).toEqual([String(2 ** 26), '50000 100000']);
  await channel.configurePodNic(nic, { memoryBytes: -1, cpuQuota: -1, cpuPeriod: 0, cpuShares: 0 }, soon());
  expect([bound('memory.max'), bound('cpu.max')]).toEqual(['max', 'max 100000']);
});

test('a machine whose clock is behind its user data is moved up to it before anything else', async () => {
  await using world = await AgentWorld.create();
  const date = recorder(world.dir, 'date');
  const later = Date.now() + 86_400_000;
  const dialer = world.dialer(await world.pki());
  const data = JSON.parse(dialer.userData(dialer.newToken(), newIdentity())) as Record<string, unknown>;
  await world.machine(JSON.stringify({ ...data, clockMs: later }), { args: ['--date', date.program] });
  expect(date.heard()).toMatch(/^-s @\d+/);
});

test('a machine that does not hear of its node in time powers itself off, enrolled or not', async () => {
  await using world = await AgentWorld.create();
  const dialer = world.dialer(await world.pki());
  const [lonely, kept] = [recorder(world.dir, 'off-lonely'), recorder(world.dir, 'off-kept')];
  const userData = (leaseMs: number): string =>
    JSON.stringify({ ...(JSON.parse(dialer.userData(dialer.newToken(), newIdentity())) as object), leaseMs });
  await world.machine(userData(500), { args: ['--power-off', lonely.program] });
  const { channel } = await world.enrolled({ args: ['--power-off', kept.program] });
  await channel.renewLease(60_000, soon());
  expect(await until(lonely.heard, { everyMs: 20, signal: soon().signal })).toBe('-f');
  expect(kept.heard()).toBeUndefined();
  await channel.renewLease(1, soon());
  expect(await until(kept.heard, { everyMs: 20, signal: soon().signal })).toBe('-f');
});

test('at the end of its lease a machine stops its containers with their grace, then powers off', async () => {
  await using world = await AgentWorld.create();
  const off = recorder(world.dir, 'power-off');
  const { machine, channel } = await world.enrolled({ args: ['--power-off', off.program] });
  const containerd = await world.containerd(machine.dir);
  containerd.running = ['one', 'two'];
  await until(() => channel.cri('Version', {}, soon()).catch(() => undefined), {
    everyMs: 50,
    signal: AbortSignal.timeout(5000),
  });
  await channel.renewLease(1, soon());
  await until(off.heard, { everyMs: 20, signal: AbortSignal.timeout(10_000) });
  expect(off.heard()).toBe('-f');
  expect([...containerd.stopped].sort((a, b) => a.id.localeCompare(b.id))).toEqual([
    { id: 'one', seconds: 10 },
    { id: 'two', seconds: 10 },
  ]);
});

test('the bundle is one file that starts fast and stays under 80 MB, idle and at work', async () => {
  await using world = await AgentWorld.create();
  const bundle = join(world.dir, 'agent.cjs');
  await bundleAgent(bundle, '1.2.3');
  expect(statSync(bundle).size).toBeLessThan(600_000);
  const { machine, channel } = await world.enrolled({ program: [...AGENT_NODE_FLAGS, bundle] });
  mkdirSync(join(machine.dir, 'usr/lib/infralet'), { recursive: true });
  writeFileSync(join(machine.dir, 'usr/lib/infralet/image-digest'), 'sha256:feed\n');
  writeFileSync(join(machine.dir, 'run/infralet/phases'), 'kernel 0\ninit 310\nbroken line here\n');

  const idle = await channel.status(soon());
  expect(idle).toMatchObject({ agentVersion: '1.2.3', imageDigest: 'sha256:feed', containerdReady: false });
  expect(idle.phases).toMatchObject({ kernel: '0', init: '310' });
  expect(Number(idle.phases['listening'])).toBeGreaterThan(0);
  expect(Number(idle.agentResidentBytes)).toBeLessThan(80_000_000);

  const bytes = Buffer.alloc(1024 * 1024);
  async function* content(): AsyncGenerator<Buffer> {
    for (let index = 0; index < 64; index += 1) yield bytes;
  }
  async function* files() {
    const size = 64 * bytes.length;
    yield { kind: 'file' as const, path: '', mode: 0o644, uid: 0, gid: 0, mtimeMs: 0, size, content: content() };
  }
  await channel.putFiles({ root: 'ROOT_SCRATCH', path: 'big', replace: true }, files(), soon());
  let read = 0;
  const signal = AbortSignal.timeout(30_000);
  for await (const data of channel.readFile('ROOT_SCRATCH', 'big', 2 ** 30, signal)) read += data.length;
  expect(read).toBe(64 * bytes.length);
  const busy = Number((await channel.status(soon())).agentResidentBytes);
  console.log(
    `agent: ${statSync(bundle).size} bytes, listening after ${String(machine.lines[0]?.['startedMs'])} ms, ` +
      `resident ${(Number(idle.agentResidentBytes) / 1e6).toFixed(0)} MB idle, ${(busy / 1e6).toFixed(0)} MB after 128 MiB of files`,
  );
  expect(busy).toBeLessThan(80_000_000);
});

test('wrong user data ends the agent with a reason that does not quote it', async () => {
  await using world = await AgentWorld.create();
  for (const text of ['not json', '{"version":9}', '{"version":1,"token":"SECRETSECRETSECRETSECRETSECRETSE"}']) {
    const failure: unknown = await world.machine(text).catch((error: unknown) => error);
    expect(String(failure)).toContain('the user data is wrong');
    expect(String(failure)).not.toContain('SECRET');
  }
});
