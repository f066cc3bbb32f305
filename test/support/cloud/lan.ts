/**
 * The network of a test cloud on this host: a bridge, an address for each machine by DHCP, and the metadata service at its
 * usual address. This host (the node) reaches machines at their private addresses and is their router.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { run, tryRun } from '../../../src/base/process.ts';
import {
  type CloudKind,
  type MetadataMachine,
  type MetadataService,
  startMetadataService,
} from '../metadata-service.ts';
import { furtherAddress } from './backend.ts';

const METADATA = '169.254.169.254';
/** Where the fakes' machines are. */
const NETWORKS: Readonly<Record<CloudKind, string>> = { ec2: '10.20', gce: '10.30' };
const MACHINES = 32;
const LIMIT = { timeoutMs: 10_000 };
const limits = () => ({ signal: AbortSignal.timeout(LIMIT.timeoutMs), ...LIMIT });

export class CloudLan implements AsyncDisposable {
  readonly metadata: MetadataService;
  readonly #bridge: string;
  readonly #redirect: readonly string[];
  readonly #dhcp: ChildProcess;
  readonly #taps = new Set<string>();

  private constructor(bridge: string, metadata: MetadataService, redirect: readonly string[], dhcp: ChildProcess) {
    this.#bridge = bridge;
    this.metadata = metadata;
    this.#redirect = redirect;
    this.#dhcp = dhcp;
  }

  /** @param busybox the guest image's, which has a DHCP server. */
  static async open(options: {
    readonly cloud: CloudKind;
    readonly directory: string;
    readonly busybox: string;
    readonly machine: (address: string) => MetadataMachine | undefined;
  }): Promise<CloudLan> {
    const bridge = `infl${process.pid}`;
    const network = NETWORKS[options.cloud];
    const router = `${network}.255.254`;
    await run('ip', ['link', 'add', bridge, 'type', 'bridge'], limits());
    await run('ip', ['addr', 'add', `${router}/16`, 'dev', bridge], limits());
    await run('ip', ['link', 'set', bridge, 'up'], limits());
    await run('ip', ['route', 'add', `${furtherAddress(network)}.0.0/16`, 'dev', bridge], limits());
    const metadata = await startMetadataService(options.cloud, options.machine, router);
    // Only for machines: a host that is itself on a cloud keeps its own metadata service.
    const redirect = ['PREROUTING', '-i', bridge, '-d', `${METADATA}/32`, '-p', 'tcp', '--dport', '80', '-j', 'DNAT'];
    redirect.push('--to-destination', `${router}:${metadata.port}`);
    await run('iptables', ['-w', '-t', 'nat', '-A', ...redirect], limits());
    const directory = join(options.directory, 'dhcp');
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, 'conf'), dhcpConfig(bridge, network, router, directory));
    const dhcp = spawn(options.busybox, ['udhcpd', '-f', join(directory, 'conf')], { stdio: 'ignore' });
    process.once('exit', () => dhcp.kill('SIGKILL'));
    return new CloudLan(bridge, metadata, redirect, dhcp);
  }

  /** A port for the machine with that address; removed with the network. */
  async tap(address: string): Promise<{ readonly device: string; readonly mac: string }> {
    const device = `infl${process.pid}t${address.split('.').at(-1) ?? ''}`;
    if (!this.#taps.has(device)) {
      await run('ip', ['tuntap', 'add', 'dev', device, 'mode', 'tap'], limits());
      this.#taps.add(device);
      await run('ip', ['link', 'set', device, 'master', this.#bridge, 'up'], limits());
    }
    return { device, mac: macOf(address) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#dhcp.exitCode === null && this.#dhcp.kill('SIGKILL')) await once(this.#dhcp, 'exit');
    await tryRun('iptables', ['-w', '-t', 'nat', '-D', ...this.#redirect], limits());
    for (const device of [...this.#taps, this.#bridge]) await tryRun('ip', ['link', 'del', device], limits());
    await this.metadata[Symbol.asyncDispose]();
  }
}

function macOf(address: string): string {
  return ['02:00', ...address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'))].join(':');
}

function dhcpConfig(bridge: string, network: string, router: string, directory: string): string {
  const addresses = Array.from({ length: MACHINES }, (_, index) => `${network}.0.${index + 1}`);
  return [
    `interface ${bridge}`,
    // Nobody but machines that were launched gets an address.
    `start ${network}.255.1`,
    `end ${network}.255.1`,
    'max_leases 1',
    `lease_file ${join(directory, 'leases')}`,
    `pidfile ${join(directory, 'pid')}`,
    'option subnet 255.255.0.0',
    `option router ${router}`,
    'option mtu 1480',
    'option lease 3600',
    ...addresses.map((address) => `static_lease ${macOf(address)} ${address}`),
    '',
  ].join('\n');
}
