/** Real machines that wait for pods: what a pod gets with one, and what becomes of them when machines or the daemon die. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { readMachine } from '../bench/machines.ts';
import { GUEST_IMAGE_TIMEOUT_MS } from '../support/guest.ts';
import { BOOT_MS, TestNode } from '../support/node.ts';
import { podConfigFor, TestPod } from '../support/pods.ts';

const seconds = (n: number) => AbortSignal.timeout(n * 1000);
const limits = () => ({ signal: seconds(20), timeoutMs: 20_000 });

let node: TestNode;
beforeAll(async () => {
  node = await TestNode.start({ settings: { machine: { minCpuMillis: 500 }, pools: { small: { size: 2 } } } });
  await node.poolsFilled(seconds(240));
}, GUEST_IMAGE_TIMEOUT_MS);
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

async function members(): Promise<readonly { readonly id: string; readonly instanceId: string }[]> {
  const [pool] = await node.admin.pools(limits());
  return pool?.['members'] as readonly { readonly id: string; readonly instanceId: string }[];
}

const dns = { servers: ['10.96.0.10'], searches: ['e2e.svc.cluster.local'], options: ['ndots:5'] };

test('a pod gets a machine that was there before it, as its own; the next one is made', async () => {
  const before = await members();
  expect(await node.cri.ListPodSandbox()).toEqual({ items: [] });
  const resources = { cpuQuota: '50000', cpuPeriod: '100000' };
  const pods = await Promise.all([
    TestPod.run(node, { hostname: 'first', dnsConfig: dns, linux: { resources } }),
    // One that needs a sandbox of its own in the machine.
    TestPod.run(node, { linux: { sysctls: { 'net.ipv4.ip_local_port_range': '20000 21000' } } }),
  ]);
  expect(pods.map(({ id }) => id).sort()).toEqual(before.map(({ id }) => id).sort());
  const [first, second] = pods;
  const [container, other] = await Promise.all([first.start('sleep 600'), second.start('sleep 600')]);
  const at = Date.now();
  const facts = (
    await container.sh(
      'date +%s; hostname; cat /etc/hostname; tr "\\n" " " </etc/resolv.conf; echo; ip route | head -1; ip -4 -o addr show dev eth0; nproc',
    )
  ).split('\n');
  expect(Math.abs(Number(facts[0]) * 1000 - at)).toBeLessThan(20_000);
  expect(facts.slice(1, 3)).toEqual(['first', 'first']);
  expect(facts[3]).toBe('search e2e.svc.cluster.local nameserver 10.96.0.10 options ndots:5 ');
  expect(facts[4]).toContain('default via 10.');
  expect(facts[5]).toContain(await first.ip());
  expect(await other.sh('cat /proc/sys/net/ipv4/ip_local_port_range')).toMatch(/^20000\s+21000$/);
  expect(await container.sh(`ping -c 1 -W 20 ${await second.ip()} >/dev/null && echo reached`)).toBe('reached');

  // Half a processor for the one pod, while the machine was made for a whole one.
  const quotaOf = async (id: string): Promise<number> => {
    const instanceId = before.find((each) => each.id === id)?.instanceId ?? '';
    return await cpuQuota((await readMachine(node.stateDir, instanceId)).cgroup);
  };
  expect((await node.admin.describe(first.id, limits()))['machine']).toMatchObject({ cpuMillis: 500 });
  expect((await quotaOf(second.id)) - (await quotaOf(first.id))).toBeCloseTo(0.5);

  await node.poolsFilled(seconds(240));
  const after = await members();
  expect(after).toHaveLength(2);
  for (const { id } of after) expect(before.map((each) => each.id)).not.toContain(id);
  expect(await node.admin.pools(limits())).toMatchObject([{ claims: 2, misses: 0 }]);
  await Promise.all(pods.map((pod) => pod.remove()));
  await node.untilMachines(2);
});

async function cpuQuota(cgroup: string): Promise<number> {
  const v2 = await readFile(join('/sys/fs/cgroup', cgroup, 'cpu.max'), 'utf8').catch(() => undefined);
  if (v2 !== undefined) {
    const [quota, period] = v2.split(' ').map(Number);
    return (quota ?? 0) / (period ?? 1);
  }
  const read = async (name: string) => Number(await readFile(join('/sys/fs/cgroup/cpu', cgroup, name), 'utf8'));
  return (await read('cpu.cfs_quota_us')) / (await read('cpu.cfs_period_us'));
}

test('a machine that dies while it waits is replaced', async () => {
  const [victim] = await members();
  if (!victim) throw new Error('no machine waits');
  const { process: emulator } = await readMachine(node.stateDir, victim.instanceId);
  process.kill(emulator.pid, 'SIGKILL');
  await until(async () => ((await members()).some(({ id }) => id === victim.id) ? undefined : true), {
    everyMs: 100,
    signal: seconds(60),
  });
  await node.poolsFilled(seconds(240));
  expect(await node.machines()).not.toContain(victim.instanceId);
});

test('kill -9 in the middle of a claim: the pod has one machine, and none is lost', async () => {
  const before = await members();
  const config = podConfigFor(node);
  const asked = node.cri.RunPodSandbox({ config }, { timeoutMs: BOOT_MS });
  asked.catch(() => undefined);
  await until(
    async () => {
      const left = (await members()).map(({ id }) => id);
      return before.some(({ id }) => !left.includes(id)) ? true : undefined;
    },
    { everyMs: 2, signal: seconds(20) },
  );
  await node.kill();
  await expect(asked).rejects.toThrow();
  await node.boot();
  const { podSandboxId } = await node.cri.RunPodSandbox({ config }, { timeoutMs: BOOT_MS });
  // A claim that was cut short within its machine may come to nothing; the pod has another one then.
  await node.poolsFilled(seconds(240));
  await node.untilMachines(3);
  await node.cri.RemovePodSandbox({ podSandboxId }, { timeoutMs: 60_000 });
  // What the configuration no longer wants goes with the next start.
  await node.configure({ pools: {} });
  await node.kill('SIGTERM');
  await node.boot();
  await node.untilMachines(0);
});
