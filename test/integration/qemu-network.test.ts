/**
 * Pod traffic through the real path: guest kernel, virtio, tap, redirection, veth, bridge. The guests run the image's kernel
 * with an init of a few lines instead of the agent, so that nothing but provider and network takes part. Needs root.
 */

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { QemuProvider } from '../../providers/qemu/provider.ts';
import { InfraletError } from '../../src/base/errors.ts';
import { newSandboxId } from '../../src/base/ids.ts';
import { until } from '../../src/base/time.ts';
import type { Instance } from '../../src/cloud/contract.ts';
import { cpio } from '../../src/guest-image/cpio.ts';
import type { CniNetwork } from '../../src/network/cni-network.ts';
import type { PodNetworkResult, PodNetworkSpec } from '../../src/network/pod-network.ts';
import { bridgePlugin, cniNetwork, conflist, PORTMAP_PLUGIN } from '../support/cni.ts';
import { GUEST_IMAGE_TIMEOUT_MS, guestImage } from '../support/guest.ts';
import { removeBridge, removeSharedLeftovers } from '../support/host-leftovers.ts';
import { deviceExists, type QemuPlace, qemuPlace } from '../support/qemu.ts';

const signal = AbortSignal.timeout(900_000);
const BRIDGE = 'inftest1';
const GATEWAY = '10.197.0.1';
const SIZE = 4 * 2 ** 20;
const BODY = Buffer.from('0123456789abcde\n'.repeat(SIZE / 16));
const DIGEST = createHash('sha256').update(BODY).digest('hex');

/** Loads the NIC's modules from the image's root, takes the pod's address from the user data, runs what stands there. */
const INIT = `#!/bin/sh
export PATH=/bin
mount -t devtmpfs dev /dev; mount -t proc proc /proc; mount -t sysfs sys /sys
while read -r module; do insmod "/modules/$module"; done </modules/list
mkdir -p /srv
until grep -q root /sys/block/vda/serial /sys/block/vdb/serial 2>/dev/null; do usleep 20000; done
for disk in vda vdb; do [ "$(cat /sys/block/$disk/serial)" = root ] && mount -t erofs -o ro /dev/$disk /root; done
for name in failover net_failover virtio_net qemu_fw_cfg; do insmod "$(find /root/lib/modules -name $name.ko)"; done
for nic in /sys/class/net/*; do [ "$(cat $nic/address)" = 52:54:00:00:00:02 ] && NIC=\${nic##*/}; done
export NIC
echo "GUEST STARTS"
sh /sys/firmware/qemu_fw_cfg/by_name/opt/infralet/user-data/raw 2>&1
while :; do sleep 1000; done
`;

let place: QemuPlace;
let provider: QemuProvider;
let network: CniNetwork;
let dir = '';

beforeAll(async () => {
  const real = await guestImage();
  place = await qemuPlace();
  dir = await mkdtemp(join(tmpdir(), 'infralet-qn-'));
  const image = join(dir, 'image');
  await mkdir(image);
  await mkdir(join(dir, 'conf'));
  for (const name of ['vmlinux', 'rootfs.erofs', 'scratch.ext4', 'manifest.json'])
    await symlink(join(real, name), join(image, name));
  const init = cpio([{ path: 'init', kind: 'file', mode: 0o755, data: Buffer.from(INIT) }]);
  // A later archive's files replace those of an earlier one.
  await writeFile(join(image, 'initramfs.cpio'), Buffer.concat([await readFile(join(real, 'initramfs.cpio')), init]));
  await writeFile(
    join(dir, 'conf', '1.conflist'),
    conflist('infralet-test', [{ ...bridgePlugin(BRIDGE, '10.197.0.0/24'), mtu: 1400 }, PORTMAP_PLUGIN]),
  );
  place.imageDir = image;
  provider = await place.open(signal);
  network = cniNetwork(dir);
}, GUEST_IMAGE_TIMEOUT_MS);

afterAll(async () => {
  await provider.terminate(
    (await provider.describe({ by: 'tags', tags: {} }, signal)).map(({ id }) => id),
    signal,
  );
  await provider[Symbol.asyncDispose]();
  for (const sandboxId of await network.list(signal)) await network.remove(pod([], sandboxId), signal);
  await removeBridge(BRIDGE, signal);
  await removeSharedLeftovers(signal);
  expect(await place.leftovers()).toEqual([]);
  expect(await deviceExists(BRIDGE)).toBe(false);
  await place[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

function pod(portMappings: PodNetworkSpec['portMappings'] = [], sandboxId = newSandboxId()): PodNetworkSpec {
  return { sandboxId, podName: 'p', podNamespace: 'n', podUid: 'u', portMappings };
}

/** A guest with the pod's address that then runs `script`. */
async function boot(spec: PodNetworkSpec, result: PodNetworkResult, script: string): Promise<Instance> {
  const [address] = result.addresses;
  const lines = [
    `ip link set dev $NIC address ${result.mac} mtu ${result.mtu} up`,
    `ip addr add ${address?.address} dev $NIC`,
    `ip route add default via ${address?.gateway}`,
    script,
  ];
  const request = {
    token: spec.sandboxId,
    tags: {},
    shape: { cpuMillis: 1000, memoryBytes: 256 * 2 ** 20, diskBytes: 0 },
    userData: lines.join('\n'),
  };
  const [launched] = await provider.launch([request], signal);
  if (!launched?.ok) throw InfraletError.from(launched?.error);
  if (launched.instance.podLink) await network.join(spec, result, launched.instance.podLink, signal);
  return launched.instance;
}

/** The console, as soon as it holds what is looked for. */
async function seen(instance: Instance, what: RegExp): Promise<string> {
  let text = '';
  try {
    return await until(
      async () => {
        text = await provider.console(instance.id, 20_000, signal);
        return what.test(text) ? text : undefined;
      },
      { everyMs: 200, signal: AbortSignal.any([signal, AbortSignal.timeout(150_000)]) },
    );
  } catch {
    throw new Error(`the console never said ${what}: ${text.slice(-2000)}`);
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

test('megabytes arrive undamaged: guest to node, node to guest, guest to guest, through a host port', async () => {
  const source = createServer((_, response) => response.end(BODY)).listen(18_197, '0.0.0.0');
  await once(source, 'listening');
  const serving = pod([{ hostPort: 18_198, containerPort: 80, protocol: 'tcp', hostIp: '' }]);
  const fetching = pod();
  const [server, client] = [await network.add(serving, signal), await network.add(fetching, signal)];
  const ip = server.addresses[0]?.address.split('/')[0] ?? '';
  const one = await boot(
    serving,
    server,
    `until wget -q -O /srv/f http://${GATEWAY}:18197/; do usleep 100000; done; sha256sum /srv/f; httpd -p 80 -h /srv; echo SERVING`,
  );
  expect(await seen(one, /SERVING/)).toContain(DIGEST);

  const direct = await fetch(`http://${ip}/f`);
  expect(sha256(await direct.bytes())).toBe(DIGEST);
  const mapped = await fetch('http://127.0.0.1:18198/f');
  expect(sha256(await mapped.bytes())).toBe(DIGEST);

  const two = await boot(
    fetching,
    client,
    `until wget -q -O /srv/g http://${ip}/f; do usleep 100000; done; sha256sum /srv/g; echo FETCHED`,
  );
  expect(await seen(two, /FETCHED/)).toContain(DIGEST);
  // The other pod: portmap 1.1 fails its CHECK on every pod that has a host port.
  await network.check(fetching, client, signal);
  source.close();

  // The network may go before the machine, or after it.
  await network.remove(serving, signal);
  await provider.terminate([one.id, two.id], signal);
  await network.remove(fetching, signal);
  expect(await deviceExists(`inf${one.id}`)).toBe(false);
}, 400_000);
