/**
 * Compute Engine on one host: a daemon with the GCP provider, the API of a fake, machines that boot the published disk and are told
 * who they are by a metadata server like theirs, and a pod whose address is the cloud's own, an alias of its machine's NIC.
 */
import { readdir, symlink } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../../src/base/time.ts';
import { QemuCloud } from '../support/cloud/qemu-cloud.ts';
import { type FakeGce, startFakeGce } from '../support/fake-gce/server.ts';
import { guestDisk } from '../support/guest.ts';
import { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';

const stack = new AsyncDisposableStack();
let machines: QemuCloud;
let gce: FakeGce;
let node: TestNode;

beforeAll(async () => {
  const disk = await guestDisk();
  machines = stack.use(await QemuCloud.open('gce', async (_image, file) => await symlink(disk, file)));
  gce = stack.use(await startFakeGce({ backend: machines }));
  const gcp = {
    ...{ project: 'p', endpoint: gce.endpoint, zones: ['us-east1-b'], podAddress: 'direct', podRange: 'pods' },
    image: 'projects/p/global/images/infralet-1',
    subnetwork: 'projects/p/regions/us-east1/subnetworks/machines',
  };
  node = stack.use(await TestNode.start({ settings: { provider: 'gcp', providers: { gcp } } }));
});
afterAll(async () => await stack.disposeAsync());

test('a pod on a machine of Compute Engine, at an address of the cloud', async () => {
  const pod = await TestPod.run(node).catch(async (error: unknown) => {
    const consoles = await Promise.all([...gce.instances.keys()].map(async (id) => await machines.console(id)));
    throw new Error(`${consoles.join('\n')}\n${(await node.daemonLog()).slice(-6000)}`, { cause: error });
  });
  const [id = ''] = gce.instances.keys();
  expect(machines.lan.metadata.requests).toEqual(
    expect.arrayContaining(['GET /computeMetadata/v1/instance/attributes/infralet-user-data 200']),
  );
  // What goes wrong while a machine starts shows on its console, and nothing does.
  expect(await machines.console(id)).not.toMatch(/^(infralet: |ip: |sh: |\S+: line \d+)/m);

  const app = await pod.start('echo hello from the cloud; exec httpd -f -p 8090 -h /');
  await app.logged('hello from the cloud');
  const ip = await pod.ip();
  expect(ip).toBe(gce.instances.get(id)?.address.replace('10.30.', '10.31.'));
  expect(await app.sh('ip -4 -o addr show eth0')).toContain(`${ip}/31`);
  const answer = await fetch(`http://${ip}:8090/etc/hostname`, { signal: AbortSignal.timeout(30_000) });
  expect(answer.status).toBe(200);
  const outside = await app.sh('ping -c1 -W5 10.30.255.254 >/dev/null && echo ok');
  expect(outside).toBe('ok');
  expect(await app.sh('wget -q -T 3 -O - http://169.254.169.254/computeMetadata/v1/ || echo unreachable')).toBe(
    'unreachable',
  );
  // The node has no part in it.
  expect(await readdir(`${node.stateDir}/network`).catch(() => [])).toEqual([]);

  await pod.remove();
  await until(() => (gce.instances.size === 0 && machines.running.length === 0 ? true : undefined), {
    everyMs: 50,
    signal: AbortSignal.timeout(30_000),
  });
});
