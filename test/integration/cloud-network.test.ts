/**
 * The network of a machine on a cloud, by the guest image's own scripts: it passes nothing on to the metadata service, even if it
 * forwards packets for its pod; its address and route are those of the cloud's DHCP, also where the router is outside the network.
 */
import { expect, test } from 'vitest';
import { run, tryRun } from '../../src/base/process.ts';

const script = (name: string): string =>
  new URL(`../../config/guest/rootfs/usr/lib/infralet/${name}`, import.meta.url).pathname;
const METADATA = '169.254.169.254';
const limits = { signal: AbortSignal.timeout(30_000), timeoutMs: 10_000 };

/** Three namespaces in a row: pod, machine, cloud; the machine routes between the other two. */
class Row implements AsyncDisposable {
  readonly #names = { pod: '', machine: '', cloud: '' };

  static async create(): Promise<Row> {
    const row = new Row();
    const { pod, machine, cloud } = row.#names;
    for (const name of [pod, machine, cloud]) {
      await run('ip', ['netns', 'add', name], limits);
      await run('ip', ['-n', name, 'link', 'set', 'lo', 'up'], limits);
    }
    await row.#link(machine, 'eth0', '10.1.0.1/24', cloud, '10.1.0.254/24');
    await row.#link(pod, 'eth0', '10.2.0.2/24', machine, '10.2.0.1/24');
    await run('ip', ['-n', cloud, 'addr', 'add', `${METADATA}/32`, 'dev', 'lo'], limits);
    await run('ip', ['-n', cloud, 'route', 'add', '10.2.0.0/24', 'via', '10.1.0.1'], limits);
    await run('ip', ['-n', machine, 'route', 'add', 'default', 'via', '10.1.0.254'], limits);
    await run('ip', ['-n', pod, 'route', 'add', 'default', 'via', '10.2.0.1'], limits);
    await row.inside('machine', ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    return row;
  }

  constructor() {
    for (const name of ['pod', 'machine', 'cloud'] as const) this.#names[name] = `infguard-${process.pid}-${name}`;
  }

  async #link(left: string, device: string, address: string, right: string, other: string): Promise<void> {
    const peer = `to${device}`;
    await run('ip', ['-n', left, 'link', 'add', device, 'type', 'veth', 'peer', 'name', peer, 'netns', right], limits);
    await run('ip', ['-n', left, 'addr', 'add', address, 'dev', device], limits);
    await run('ip', ['-n', right, 'addr', 'add', other, 'dev', peer], limits);
    await run('ip', ['-n', left, 'link', 'set', device, 'up'], limits);
    await run('ip', ['-n', right, 'link', 'set', peer, 'up'], limits);
  }

  async inside(name: 'pod' | 'machine', command: readonly string[]): Promise<number> {
    const { exitCode } = await tryRun('ip', ['netns', 'exec', this.#names[name], ...command], limits);
    return exitCode;
  }

  async reaches(name: 'pod' | 'machine', address: string): Promise<boolean> {
    return (await this.inside(name, ['busybox', 'ping', '-c1', '-W1', address])) === 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of Object.values(this.#names)) await tryRun('ip', ['netns', 'del', name], limits);
  }
}

test('the machine reaches the metadata service, what it forwards for its pod does not', async () => {
  await using row = await Row.create();
  expect(await row.reaches('pod', METADATA)).toBe(true);
  expect(await row.inside('machine', ['sh', script('guard-metadata')])).toBe(0);
  expect(await row.reaches('machine', METADATA)).toBe(true);
  expect(await row.reaches('pod', METADATA)).toBe(false);
  // Everything else passes as before.
  expect(await row.reaches('pod', '10.1.0.254')).toBe(true);
});

test.each([
  { cloud: 'EC2', lease: { ip: '172.31.5.9', mask: '20', router: '172.31.0.1', mtu: '9001' }, prefix: '20' },
  { cloud: 'Compute Engine', lease: { ip: '10.128.0.5', mask: '32', router: '10.128.0.1', mtu: '1460' }, prefix: '32' },
])('a lease of $cloud gives address, size of packets and the way out; a renewal changes nothing', async (entry) => {
  const { ip, router, mtu } = entry.lease;
  const name = `infdhcp-${process.pid}`;
  await run('ip', ['netns', 'add', name], limits);
  try {
    const inside = async (command: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<string> =>
      await run('ip', ['netns', 'exec', name, ...command], { ...limits, env });
    await inside(['ip', 'link', 'add', 'eth0', 'mtu', '9500', 'type', 'veth', 'peer', 'name', 'router']);
    await inside(['ip', 'link', 'set', 'eth0', 'up']);
    for (const event of ['deconfig', 'bound', 'renew', 'leasefail']) {
      await inside(['sh', script('dhcp'), event], { interface: 'eth0', ...entry.lease });
    }
    expect(await inside(['ip', '-o', '-4', 'addr', 'show', 'dev', 'eth0'])).toContain(`inet ${ip}/${entry.prefix} `);
    expect(await inside(['ip', 'link', 'show', 'dev', 'eth0'])).toContain(`mtu ${mtu} `);
    const routes = await inside(['ip', 'route']);
    expect(routes).toContain(`default via ${router} dev eth0`);
    expect(routes).toContain(`${router} dev eth0 scope link`);
    expect(routes.match(/default/g)).toHaveLength(1);
  } finally {
    await tryRun('ip', ['netns', 'del', name], limits);
  }
});
