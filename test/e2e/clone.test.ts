/** Pods in clones of one template: what a container sees is its own, and a pod that a template does not fit runs as well. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { GUEST_IMAGE_TIMEOUT_MS } from '../support/guest.ts';
import { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';

let node: TestNode;

beforeAll(async () => {
  node = await TestNode.start();
  await until(async () => ((await node.daemonLog()).includes('"template ready"') ? true : undefined), {
    everyMs: 100,
    signal: AbortSignal.timeout(180_000),
  });
}, GUEST_IMAGE_TIMEOUT_MS);
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

const dns = { servers: ['10.96.0.10'], searches: ['e2e.svc.cluster.local'], options: ['ndots:5'] };
const plain = {
  seccomp: { profileType: 'RuntimeDefault' },
  namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'POD' },
} as const;

describe('clones', () => {
  test('of one template differ in all that must differ', async () => {
    const look = async (name: string): Promise<readonly string[]> => {
      const pod = await TestPod.run(node, { hostname: name, dnsConfig: dns, linux: { securityContext: plain } });
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
      return [...facts.slice(2, 7), facts[10] ?? '', container.id];
    };
    const [one, two] = await Promise.all([look('first'), look('second')]);
    for (const [index, fact] of one.entries()) expect(two[index]).not.toBe(fact);
    expect(await node.daemonLog()).not.toContain('boots cold');
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

  test('take pods that the sandbox of the template does not fit', async () => {
    const pod = await TestPod.run(node, { linux: { sysctls: { 'net.ipv4.ip_local_port_range': '20000 21000' } } });
    const container = await pod.start('sleep 600');
    expect(await container.sh('cat /proc/sys/net/ipv4/ip_local_port_range')).toMatch(/^20000\s+21000$/);
    expect(await container.sh('ip -4 -o addr show dev eth0')).toContain(await pod.ip());
  });
});
