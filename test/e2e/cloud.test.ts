/**
 * The whole way on one host: the disk published as an AMI, a daemon with the AWS provider, the API of a fake EC2, machines that
 * boot what was published, user data from IMDSv2, enrolment, the pod's network over VXLAN, a container, and the end of it all.
 */
import { stat } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { publish } from '../../providers/aws/publish.ts';
import { until } from '../../src/base/time.ts';
import { QemuCloud } from '../support/cloud/qemu-cloud.ts';
import { subnetOf } from '../support/fake-ec2/actions.ts';
import type { FakeInstance } from '../support/fake-ec2/cloud.ts';
import { type FakeEc2, startFakeEc2 } from '../support/fake-ec2/server.ts';
import { guestDisk } from '../support/guest.ts';
import { TestNode } from '../support/node.ts';
import { TestPod } from '../support/pods.ts';

const stack = new AsyncDisposableStack();
let machines: QemuCloud;
let ec2: FakeEc2;
let node: TestNode;
let imageId: string;

beforeAll(async () => {
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
  const disk = await guestDisk();
  machines = stack.use(await QemuCloud.open('ec2', async (imageId, file) => await ec2.ebs.restore(imageId, file)));
  ec2 = stack.use(await startFakeEc2({ backend: machines }));
  ({ id: imageId } = await publish(
    { region: 'us-east-1', endpoint: ec2.endpoint, ebsEndpoint: ec2.endpoint, snapshotEvery: '10ms' },
    {
      ...{ file: disk, size: (await stat(disk)).size, name: 'infralet-guest-e2e', description: '', tags: {} },
      ...{ settings: {}, onProgress: () => undefined },
    },
    AbortSignal.timeout(120_000),
  ));
  node = stack.use(
    await TestNode.start({
      settings: {
        provider: 'aws',
        policy: { annotations: [{ namespaces: ['*'], allow: ['market'] }] },
        providers: {
          aws: {
            region: 'us-east-1',
            endpoint: ec2.endpoint,
            imageId,
            subnets: ['z-1a', 'z-1b'].map(subnetOf),
            securityGroups: ['sg-0123'],
          },
        },
      },
    }),
  );
});
afterAll(async () => {
  await stack.disposeAsync();
  vi.unstubAllEnvs();
});

test('a machine that is told nothing of use switches itself off, and that ends it', async () => {
  const [lost] = await ec2.cloud.run({
    ...{ token: 'lost', type: 't3.small', zone: 'z-1a', market: 'on-demand', min: 1, max: 1, tags: {} },
    userData: Buffer.from('#!/bin/sh\necho not for us').toString('base64'),
    request: {
      ImageId: imageId,
      InstanceInitiatedShutdownBehavior: 'terminate',
      'BlockDeviceMapping.1.Ebs.VolumeSize': '3',
    },
  });
  await until(() => lost?.ended, { everyMs: 100, signal: AbortSignal.timeout(240_000) });
  expect(lost?.ended?.code).toBe('Client.InstanceInitiatedShutdown');
  expect(await ec2.cloud.console(lost as FakeInstance)).toContain('has no user data and powers itself off');
  expect(machines.running).toEqual([]);
});

test('a pod on a machine of EC2, from the API to its last byte', async () => {
  const hostPort = 18_093;
  const asked = {
    annotations: { 'infralet.dev/market': 'spot' },
    portMappings: [{ protocol: 'TCP', containerPort: 8090, hostPort, hostIp: '' }],
  } as const;
  const pod = await TestPod.run(node, { ...asked, portMappings: [...asked.portMappings] }).catch(
    async (error: unknown) => {
      const consoles = await Promise.all(ec2.cloud.alive.map((entry) => ec2.cloud.console(entry)));
      throw new Error(`${consoles.join('\n')}\n${(await node.daemonLog()).slice(-6000)}`, { cause: error });
    },
  );
  const [instance] = ec2.cloud.alive;
  if (!instance) throw new Error('no instance runs');
  // What a machine is told, it is told under a token.
  expect(machines.lan.metadata.requests).toEqual(
    expect.arrayContaining(['PUT /latest/api/token 200', 'GET /latest/user-data 200']),
  );
  // What goes wrong while a machine starts shows on its console, and nothing does.
  expect(await ec2.cloud.console(instance)).not.toMatch(/^(infralet: |ip: |sh: |\S+: line \d+)/m);

  const app = await pod.start('echo hello from the cloud; exec httpd -f -p 8090 -h /');
  await app.logged('hello from the cloud');
  expect(await app.sh('cat /proc/sys/kernel/hostname; uname -r')).toContain('cloud-amd64');
  const ip = await pod.ip();
  expect(await app.sh('ip -4 -o addr show eth0')).toContain(`${ip}/`);
  // The pod's network: from the node to the pod, and from the pod to the node's bridge.
  const answer = await fetch(`http://${ip}:8090/etc/hostname`, { signal: AbortSignal.timeout(30_000) });
  expect(answer.status).toBe(200);
  const mapped = await fetch(`http://127.0.0.1:${hostPort}/etc/hostname`, { signal: AbortSignal.timeout(30_000) });
  expect(mapped.status).toBe(200);
  expect(
    await app.sh('ping -c1 -W5 $(ip route | sed -n "s/default via \\([^ ]*\\).*/\\1/p") >/dev/null && echo ok'),
  ).toBe('ok');
  // The metadata service is the machine's, not the pod's.
  expect(await app.sh('wget -q -T 3 -O - http://169.254.169.254/latest/api/token || echo unreachable')).toBe(
    'unreachable',
  );
  expect(machines.lan.metadata.requests.filter((line) => line.startsWith('GET /latest/api/token'))).toEqual([]);
  // The scratch area has taken what the volume is larger than the image.
  const gib = Number(instance.request['BlockDeviceMapping.1.Ebs.VolumeSize']);
  const kib = Number(await app.sh("df -k / | awk 'NR==2 { print $2 }'"));
  expect(kib).toBeGreaterThan((gib - 1) * 2 ** 20);

  // EC2 takes the spot machine back: the pod's containers end in good order, and say why.
  const polite = await pod.start('trap "echo last words; exit 3" TERM; echo first; while :; do sleep 0.1; done');
  await polite.logged('first');
  machines.announceEnd(instance, 120_000);
  expect(await polite.exited()).toMatchObject({
    exitCode: 3,
    reason: 'SpotInterruption',
    message: expect.stringMatching(/^the cloud takes the pod's spot machine .* back: terminate in 1\d\d s/),
  });
  expect((await app.exited()).reason).toBe('SpotInterruption');
  await polite.logged('last words');
  const { status } = await node.cri.PodSandboxStatus({ podSandboxId: pod.id });
  expect(status?.state).toBe('SANDBOX_NOTREADY');
  await pod.remove();
  await until(() => (ec2.cloud.alive.length === 0 && machines.running.length === 0 ? true : undefined), {
    everyMs: 50,
    signal: AbortSignal.timeout(30_000),
  });
});
