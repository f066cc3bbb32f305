/** The AWS provider against a fake EC2 that keeps the published limits, by the real SDK. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { type Instance, type LaunchRequest, ownerTags, TAGS } from '../../../src/cloud/contract.ts';
import type { CloudProvider } from '../../../src/cloud/provider.ts';
import { openAws } from '../../support/fake-ec2/open.ts';
import { type FakeEc2, startFakeEc2 } from '../../support/fake-ec2/server.ts';

const OWNER = ownerTags('c', 'n');
const SHAPE = { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 10 * 2 ** 30 };

describe('EC2', () => {
  const signal = AbortSignal.timeout(110_000);
  let ec2: FakeEc2;
  let stateDir: string;
  let provider: CloudProvider;
  let count = 0;

  const request = (extra: Partial<LaunchRequest> = {}): LaunchRequest => {
    count += 1;
    const userData = JSON.stringify({ version: 1, cluster: 'c', sandboxId: `s${count}`, token: `t${count}` });
    return {
      token: `launch-${count}`,
      tags: { ...OWNER, [TAGS.sandbox]: `s${count}` },
      shape: SHAPE,
      userData,
      ...extra,
    };
  };
  const launch = async (asked: LaunchRequest): Promise<Instance> => {
    const [result] = await provider.launch([asked], signal);
    if (!result?.ok) throw InfraletError.from(result?.error);
    return result.instance;
  };
  const open = (settings: Readonly<Record<string, unknown>> = {}): CloudProvider =>
    openAws({ endpoint: ec2.endpoint, stateDir, owner: OWNER, settings });

  beforeEach(async () => {
    ec2 = await startFakeEc2({ pendingMs: 300, lagMs: 200 });
    stateDir = await mkdtemp(join(tmpdir(), 'infralet-test-'));
    provider = open();
  });
  afterEach(async () => {
    await provider[Symbol.asyncDispose]();
    await ec2[Symbol.asyncDispose]();
    await rm(stateDir, { recursive: true });
  });

  test('a machine is asked for as it must be: tags at birth, metadata behind a token, ends when it powers off', async () => {
    const asked = request();
    const instance = await launch(asked);
    expect(instance.purchase).toMatchObject({ type: 't3.small', market: 'on-demand', pricePerHour: 0.0208 });
    expect(instance.agent).toEqual({ host: ec2.cloud.alive[0]?.address, port: 7443 });
    const sent = ec2.cloud.alive[0]?.request ?? {};
    expect(sent).toMatchObject({
      MinCount: '1',
      MaxCount: '1',
      InstanceInitiatedShutdownBehavior: 'terminate',
      'MetadataOptions.HttpTokens': 'required',
      'MetadataOptions.HttpPutResponseHopLimit': '1',
      'BlockDeviceMapping.1.Ebs.DeleteOnTermination': 'true',
      'BlockDeviceMapping.1.Ebs.Encrypted': 'true',
      'BlockDeviceMapping.1.Ebs.VolumeSize': '11',
    });
    const kinds = [1, 2, 3].map((index) => sent[`TagSpecification.${index}.ResourceType`]);
    expect(kinds).toEqual(['instance', 'volume', 'network-interface']);
    for (const index of [1, 2, 3]) {
      const tags = Object.keys(sent).filter(
        (key) => key.startsWith(`TagSpecification.${index}.Tag.`) && key.endsWith('.Key'),
      );
      expect(tags.map((key) => sent[key])).toEqual(expect.arrayContaining(Object.keys(asked.tags)));
    }
    expect(Buffer.from(sent['UserData'] ?? '', 'base64').toString()).toBe(asked.userData);
  });

  test('an address for the pod is asked for with the machine and learnt from it', async () => {
    const before = await launch(request());
    await provider[Symbol.asyncDispose]();
    provider = open({ podAddress: 'direct' });
    expect(provider.directPods).toBe(true);
    const instance = await launch(request());
    const made = ec2.cloud.instances.get(instance.id);
    expect(made?.secondaries).toHaveLength(1);
    const link = { kind: 'direct', address: made?.address, podAddress: made?.secondaries[0] };
    expect(instance.podLink).toEqual(link);
    expect(made?.request).toMatchObject({
      'NetworkInterface.1.SecurityGroupId.1': 'sg-0123',
      'NetworkInterface.1.DeleteOnTermination': 'true',
    });
    const seen = async (id: Instance['id']) => (await provider.describe({ by: 'ids', ids: [id] }, signal))[0];
    await expect.poll(async () => (await seen(instance.id))?.state).toBe('running');
    expect((await seen(instance.id))?.podLink).toEqual(link);
    // A machine that was there before has no second address, and keeps its tunnel.
    await expect.poll(async () => (await seen(before.id))?.podLink?.kind).toBe('vxlan');
  });

  test('only types that the AMI can be booted on are offered', async () => {
    const types = async (architecture?: string): Promise<readonly string[]> => {
      await using opened = open({ imageId: architecture === undefined ? 'ami-1' : `ami-${architecture}` });
      const { ranked, rejected } = await opened.explain(SHAPE, {}, signal);
      return [...new Set([...ranked, ...rejected.map(({ offer }) => offer)].map(({ type }) => type))];
    };
    expect(await types()).toContain('t3.small');
    expect(await types('x86_64')).toContain('t3.small');
    expect(await types('arm64')).toEqual([]);
  });

  test('200 pods at once: never throttled, at most 12 launches and one list per second', async () => {
    await provider[Symbol.asyncDispose]();
    provider = open({ describeEvery: '1s' });
    const begun = Date.now();
    const instances = await Promise.all(
      Array.from({ length: 200 }, async () => {
        const made = await launch(request());
        for (;;) {
          const [seen] = await provider.describe({ by: 'ids', ids: [made.id] }, signal);
          if (seen?.state === 'running') return made;
        }
      }),
    );
    const seconds = (Date.now() - begun) / 1000;
    expect(new Set(instances.map(({ id }) => id)).size).toBe(200);
    const made = ec2.calls.filter(({ action }) => action === 'RunInstances');
    expect(made.length).toBeLessThanOrEqual(12);
    expect(ec2.calls.filter(({ outcome }) => outcome === 'RequestLimitExceeded')).toEqual([]);
    const lists = ec2.calls.filter(({ action }) => action === 'DescribeInstances');
    expect(lists.length).toBeLessThanOrEqual(Math.ceil(seconds) + 1);
    await Promise.all(instances.map(async ({ id }) => await provider.terminate([id], signal)));
    expect(ec2.cloud.alive).toEqual([]);
    expect(ec2.calls.filter(({ action }) => action === 'TerminateInstances').length).toBeLessThanOrEqual(4);
  });

  // Measured by the clock on the wall: a busy machine gets another try. In virtual time: provider.test.ts.
  test('no capacity in the cheapest zone: the SDK does not insist, the next offer is asked for within 100 ms', {
    retry: 3,
  }, async () => {
    await launch(request());
    ec2.cloud.capacity.set('t3.small/z-1a/on-demand', 0);
    const { purchase } = await launch(request());
    expect(purchase).toMatchObject({ type: 't3.small', zone: 'z-1b' });
    const [, refused, next, ...more] = ec2.calls.filter(({ action }) => action === 'RunInstances');
    expect(refused?.outcome).toBe('InsufficientInstanceCapacity');
    // The batch window of 5 ms is part of it.
    expect((next?.at ?? 0) - (refused?.at ?? 0)).toBeLessThan(100);
    expect(more).toEqual([]);
  });

  test('an answer that is lost after the launch makes no second machine, not even over a restart', async () => {
    for (let i = 0; i < 5; i += 1)
      ec2.cloud.script.push({ action: 'RunInstances', when: 'after', code: 'InternalError', status: 500 });
    const asked = request();
    await expect(launch(asked)).rejects.toThrow(/InternalError/);
    await provider[Symbol.asyncDispose]();
    provider = open();
    const instance = await launch(asked);
    expect(ec2.cloud.alive.map(({ id }) => id)).toEqual([instance.id]);
  });

  test('throttled by others on the same account: slower, and it still gets through', async () => {
    ec2.cloud.script.push({ action: 'RunInstances', when: 'before', code: 'RequestLimitExceeded', status: 503 });
    await launch(request());
    expect(provider.limiters.launch.throttles).toBe(1);
  });

  test('spot that is taken back says so', async () => {
    const { id, purchase } = await launch(request({ placement: { market: 'spot' } }));
    expect(purchase).toMatchObject({ market: 'spot', pricePerHour: 0.0062 });
    const machine = ec2.cloud.instances.get(id);
    if (!machine) throw new Error('no such machine');
    await ec2.cloud.end(machine, 'Server.SpotInstanceTermination', 'Spot instance termination');
    const gone = async (): Promise<Instance | undefined> =>
      (await provider.describe({ by: 'ids', ids: [id] }, signal))[0];
    await expect.poll(async () => (await gone())?.state, { timeout: 5000 }).toBe('terminated');
    expect((await gone())?.reason).toBe('Server.SpotInstanceTermination: Spot instance termination');
  });

  test.each([
    ['VcpuLimitExceeded', 400, 'quota'],
    ['UnauthorizedOperation', 403, 'auth'],
    ['InvalidAMIID.NotFound', 400, 'invalid'],
  ])('%s is told as it is', async (code, status, kind) => {
    for (let i = 0; i < 12; i += 1) ec2.cloud.script.push({ action: 'RunInstances', when: 'before', code, status });
    const [result] = await provider.launch([request()], signal);
    if (!result || result.ok) throw new Error('it was launched');
    const fault = provider.classify(result.error);
    expect(fault.kind).toBe(kind);
    expect(fault.message).toContain(code);
  });

  test('doctor names what is wrong', async () => {
    expect((await provider.doctor(signal)).every(({ ok }) => ok)).toBe(true);
    ec2.cloud.script.push({ action: 'RunInstances', when: 'before', code: 'UnauthorizedOperation', status: 403 });
    const failed = (await provider.doctor(signal)).find(({ ok }) => !ok);
    expect(failed).toMatchObject({ name: 'aws permission to launch' });
    expect(failed?.fix).toContain('docs/providers/aws.md');
  });
});
