/** Pods in clones of one template: what a container sees is its own, and a pod that a template does not fit runs as well. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { GUEST_IMAGE_TIMEOUT_MS } from '../support/guest.ts';
import { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';

const dns = { servers: ['10.96.0.10'], searches: ['e2e.svc.cluster.local'], options: ['ndots:5'] };
/** Far less than any machine has. */
const POD_MEMORY = 64 * 2 ** 20;
const plain = {
  seccomp: { profileType: 'RuntimeDefault' },
  namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' },
} as const;

let node: TestNode;
/** Of the daemon's log, characters that are older than the tests. */
let beforehand = 0;

beforeAll(async () => {
  node = await TestNode.start();
  // The first pod of a size is why its template is built; a busy host may take longer than a pod waits for it.
  const first = await TestPod.run(node, { linux: { resources: { memoryLimitInBytes: String(POD_MEMORY) } } });
  const limits = { signal: AbortSignal.timeout(180_000), timeoutMs: 10_000 };
  const ready = async (): Promise<true | undefined> =>
    (await node.admin.templates(limits)).every(({ state }) => state === 'ready') ? true : undefined;
  await until(ready, { everyMs: 100, signal: limits.signal });
  await first.remove();
  beforehand = (await node.daemonLog()).length;
}, GUEST_IMAGE_TIMEOUT_MS);
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

describe('clones', () => {
  test('of one template differ in all that must differ', async () => {
    const look = async (name: string): Promise<readonly string[]> => {
      const linux = { securityContext: plain, resources: { memoryLimitInBytes: String(POD_MEMORY) } };
      const pod = await TestPod.run(node, { hostname: name, dnsConfig: dns, linux });
      const container = await pod.start('sleep 600');
      const before = Date.now();
      const [clock, ...facts] = (
        await container.sh(
          'date +%s; hostname; cat /etc/hostname; cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid; ' +
            'head -c 32 /dev/urandom | base64; cat /sys/class/net/eth0/address; ip -4 -o addr show dev eth0; ' +
            'echo "$HOSTNAME"; cat /etc/resolv.conf | tr "\\n" " "; echo; ip route | head -1; ip -6 -o addr show dev eth0 scope link',
        )
      ).split('\n');
      expect(Number(clock) * 1000).toBeGreaterThan(before - 2000);
      expect(Number(clock) * 1000).toBeLessThan(Date.now() + 1000);
      expect(facts[0]).toBe(name);
      expect(facts[1]).toBe(name);
      expect(facts[6]).toContain(await pod.ip());
      expect(facts[7]).toBe(name);
      expect(facts[8]).toBe('search e2e.svc.cluster.local nameserver 10.96.0.10 options ndots:5 ');
      expect(facts[9]).toContain('default via 10.');
      // containerd's own randomness shows in the ids that it draws.
      const { info } = await node.cri.ContainerStatus({ containerId: container.id, verbose: true });
      const guestId = /"guestId":\s*"([0-9a-f]{64})"/.exec(Object.values(info).join())?.[1] ?? '';
      expect(guestId).not.toBe('');
      expect(await container.sh('cat /proc/self/personality /proc/self/cgroup')).toBe('00000000\n0::/');
      const greedy = await container.exec('/bin/sh', '-c', `tail -c ${2 * POD_MEMORY} /dev/zero | head -c 1`);
      expect(greedy.stdout).toBe('');
      return [...facts.slice(2, 7), facts[10] ?? '', container.id, guestId];
    };
    const [one, two] = await Promise.all([look('first'), look('second')]);
    for (const [index, fact] of one.entries()) expect(two[index]).not.toBe(fact);
    const log = (await node.daemonLog()).slice(beforehand);
    expect(log).not.toContain('boots cold');
    expect(log).not.toContain('not as it should be');
  });

  test('reach each other and the node', async () => {
    const [server, client] = await Promise.all([TestPod.run(node), TestPod.run(node)]);
    const web = await server.start('mkdir /www; echo hello >/www/index.html; exec httpd -f -p 80 -h /www');
    const caller = await client.start('sleep 600');
    const answer = await caller.sh(
      `for i in 1 2 3 4 5 6 7 8 9 10; do wget -qO- http://${await server.ip()}/ && break; sleep 1; done`,
    );
    expect(answer).toBe('hello');
    expect((await web.status()).state).toBe('CONTAINER_RUNNING');
  });

  test('take pods that the sandbox of the template does not fit; their machines have names of their own', async () => {
    const namespaceOptions = { network: 'POD', pid: 'NODE', ipc: 'POD' } as const;
    const securityContext = { privileged: true, namespaceOptions };
    const sysctls = { 'net.ipv4.ip_local_port_range': '20000 21000' };
    const look = async (): Promise<string> => {
      const resources = { memoryLimitInBytes: String(POD_MEMORY), cpuQuota: '70000', cpuPeriod: '100000' };
      const pod = await TestPod.run(node, { linux: { sysctls, securityContext, resources } });
      const container = await pod.start('sleep 600', { linux: { securityContext } });
      expect(await container.sh('cat /proc/sys/net/ipv4/ip_local_port_range')).toMatch(/^20000\s+21000$/);
      expect(await container.sh('ip -4 -o addr show dev eth0')).toContain(await pod.ip());
      const machine = (command: string) => container.sh(`nsenter -t 1 -m ${command}`);
      expect(await machine('cat /sys/fs/cgroup/pod/memory.max')).toBe(String(POD_MEMORY));
      expect(await machine('cat /sys/fs/cgroup/pod/cpu.max')).toBe('70000 100000');
      return await machine('cat /etc/machine-id');
    };
    const [one, two] = await Promise.all([look(), look()]);
    expect(one).toMatch(/^[0-9a-f]{32}$/);
    expect(two).not.toBe(one);
  });
});
