/**
 * A stand-in for a machine's network end: a QEMU process without a guest that passes frames between the machine's tap and a
 * second tap in a namespace of its own, which then plays the guest with the pod's addresses. Real frames through a real tap.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { run, tryRun } from '../../src/base/process.ts';
import { until } from '../../src/base/time.ts';
import type { PodNetworkResult } from '../../src/network/pod-network.ts';

/** A Debian package of the set-up, not a module. */
const EMULATOR = 'qemu-system-x86_64';
const signal = AbortSignal.timeout(600_000);
const sh = async (...words: readonly string[]): Promise<string> =>
  await run(words[0] ?? '', words.slice(1), { signal, timeoutMs: 10_000 });

export interface PodWire extends AsyncDisposable {
  readonly tap: string;
  /** The namespace that plays the guest. */
  readonly guest: string;
  /** Gives the guest's end what CNI decided. */
  configure(network: PodNetworkResult): Promise<void>;
}

/** `name`: at most 10 characters, unique on this host. */
export async function podWire(name: string): Promise<PodWire> {
  const [tap, inner, guest] = [`inf${name}`, `ing${name}`, `infralet-test-${name}`];
  const qmp = `/tmp/${guest}.sock`;
  await sh('ip', 'netns', 'add', guest);
  const end = (id: string, device: string): readonly string[] => [
    ...['-netdev', `tap,id=${id},ifname=${device},script=no,downscript=no,vnet_hdr=off`],
    ...['-netdev', `hubport,id=h${id},hubid=0,netdev=${id}`],
  ];
  const args = ['-M', 'none', '-nodefaults', '-display', 'none', '-qmp', `unix:${qmp},server=on,wait=off`];
  const child = spawn(EMULATOR, [...args, ...end('a', tap), ...end('b', inner)], { stdio: 'ignore' });
  await until(
    async () =>
      (await tryRun('ip', ['link', 'show', inner], { signal, timeoutMs: 5000 })).exitCode === 0 ? true : undefined,
    { everyMs: 10, signal },
  );
  // Frames flow when the emulated machine runs, which its control socket's answer shows.
  await until(async () => await answers(qmp), { everyMs: 10, signal });
  await sh('ip', 'link', 'set', inner, 'netns', guest);
  return {
    tap,
    guest,
    configure: async (network) => {
      const inside = ['ip', '-n', guest];
      await sh(...inside, 'link', 'set', inner, 'address', network.mac, 'mtu', String(network.mtu), 'up');
      await sh(...inside, 'link', 'set', 'lo', 'up');
      for (const { address } of network.addresses) await sh(...inside, 'addr', 'add', address, 'dev', inner, 'nodad');
      for (const { destination, gateway } of network.routes) {
        await sh(...inside, 'route', 'add', destination, ...(gateway ? ['via', gateway] : []), 'dev', inner);
      }
    },
    [Symbol.asyncDispose]: async () => {
      await endChild(child);
      await sh('ip', 'netns', 'del', guest);
      await rm(qmp, { force: true });
    },
  };
}

async function answers(path: string): Promise<true | undefined> {
  const socket = connect(path);
  const { promise, resolve } = Promise.withResolvers<true | undefined>();
  socket.once('data', () => resolve(true));
  socket.once('error', () => resolve(undefined));
  const result = await promise;
  socket.destroy();
  return result;
}

export async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGKILL');
  await ended;
}
