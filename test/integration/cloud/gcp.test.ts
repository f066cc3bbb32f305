/** The GCP provider against a fake Compute Engine, by the official client. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { type Instance, type LaunchRequest, ownerTags, TAGS } from '../../../src/cloud/contract.ts';
import type { CloudProvider } from '../../../src/cloud/provider.ts';
import { openGcp } from '../../support/fake-gce/open.ts';
import { type FakeGce, startFakeGce } from '../../support/fake-gce/server.ts';

// A cluster's name that no label can hold.
const OWNER = ownerTags('Cluster.One', 'n');
const SHAPE = { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 10 * 2 ** 30 };

describe('Compute Engine', () => {
  const signal = AbortSignal.timeout(110_000);
  let gce: FakeGce;
  let stateDir: string;
  let provider: CloudProvider;
  let count = 0;

  const request = (extra: Partial<LaunchRequest> = {}): LaunchRequest => {
    count += 1;
    const tags = { ...OWNER, [TAGS.sandbox]: `s${count}` };
    return { token: `launch-${count}`, tags, shape: SHAPE, userData: `{"version":1,"n":${count}}`, ...extra };
  };
  const launch = async (asked: LaunchRequest): Promise<Instance> => {
    const [result] = await provider.launch([asked], signal);
    if (!result?.ok) throw InfraletError.from(result?.error);
    return result.instance;
  };
  const open = (settings: Readonly<Record<string, unknown>> = {}): CloudProvider =>
    openGcp({ endpoint: gce.endpoint, stateDir, owner: OWNER, settings });

  beforeEach(async () => {
    gce = await startFakeGce({ operationMs: 50, lagMs: 200 });
    stateDir = await mkdtemp(join(tmpdir(), 'infralet-test-'));
    provider = open();
  });
  afterEach(async () => {
    await provider[Symbol.asyncDispose]();
    await gce[Symbol.asyncDispose]();
    await rm(stateDir, { recursive: true });
  });

  test('a machine is asked for as it must be, and is found by what labels can hold', async () => {
    const asked = request();
    const instance = await launch(asked);
    expect(instance.purchase).toMatchObject({ type: 'e2-small', market: 'on-demand' });
    const [made] = [...gce.instances.values()];
    expect(instance.agent).toEqual({ host: made?.address, port: 7443 });
    expect(made?.resource).toMatchObject({
      labels: { 'infralet-cluster': expect.stringMatching(/^[0-9a-f]{32}$/), 'infralet-node': 'n' },
      scheduling: { automaticRestart: false, provisioningModel: 'STANDARD' },
      disks: [{ boot: true, autoDelete: true, initializeParams: { diskSizeGb: '11' } }],
    });
    expect(made?.resource).not.toHaveProperty('serviceAccounts');
    expect(JSON.stringify(made?.resource['metadata'])).toContain('infralet-user-data');
    await expect
      .poll(async () => (await provider.describe({ by: 'tags', tags: asked.tags }, signal)).map(({ id }) => id))
      .toEqual([instance.id]);
    expect(await provider.describe({ by: 'tags', tags: { ...asked.tags, [TAGS.cluster]: 'other' } }, signal)).toEqual(
      [],
    );
  });

  test('an operation that does not end is given up after its time limit, and its machine is found by the next try', async () => {
    await Promise.all([provider[Symbol.asyncDispose](), gce[Symbol.asyncDispose]()]);
    gce = await startFakeGce({ operationMs: 1500, lagMs: 200 });
    provider = open({ operationTimeout: '100ms', launchTries: 2, retryInitial: '10ms' });
    const asked = request();
    const error: unknown = await launch(asked).catch((thrown: unknown) => thrown);
    expect(provider.classify(error).kind).toBe('transient');
    expect(provider.classify(error).message).toMatch(/the operation operation-1 .* took longer than 100 ms/);
    await expect
      .poll(() => [...gce.instances.values()].map(({ status }) => status), { timeout: 10_000 })
      .toEqual(['RUNNING']);
    const { id } = await launch(asked);
    expect([...gce.instances.keys()]).toEqual([id]);
  });

  test('an address for the pod is asked for with the machine and learnt from it', async () => {
    expect(() => open({ podRange: 'pods' })).toThrow(/podRange.*podAddress: direct/);
    await provider[Symbol.asyncDispose]();
    provider = open({ podAddress: 'direct', podRange: 'pods' });
    const { podLink } = await launch(request());
    const [made] = [...gce.instances.values()];
    expect(made?.resource['networkInterfaces']).toMatchObject([
      { aliasIpRanges: [{ ipCidrRange: '/32', subnetworkRangeName: 'pods' }] },
    ]);
    const podAddress = made?.address.replace('10.30.', '10.31.');
    expect(podLink).toEqual({ kind: 'direct', address: made?.address, podAddress });
  });

  test('a zone that is sold out says so in the operation only: the next one is asked in the same launch', async () => {
    gce.capacity.set('e2-small/us-east1-b/STANDARD', 0);
    expect((await launch(request())).purchase).toMatchObject({ zone: 'us-east1-c' });
    await launch(request());
    const inserts = gce.calls.filter(({ method, path }) => method === 'POST' && path.endsWith('/instances'));
    // Remembered: the second pod did not ask there again.
    expect(inserts).toHaveLength(3);
  });

  test('machines made to measure', async () => {
    await provider[Symbol.asyncDispose]();
    provider = open({ customTypes: ['e2'], machineTypes: ['n2-*'] });
    const shape = { ...SHAPE, cpuMillis: 3000, memoryBytes: 5 * 2 ** 30 };
    const { purchase } = await launch(request({ shape }));
    expect(purchase?.type).toMatch(/^e2-custom-4-/);
    const memory = Number(purchase?.type.split('-')[3]);
    expect(memory % 256).toBe(0);
    expect(memory).toBeLessThan(6 * 1024);
    // The hypervisor's part is counted: what the guest sees is enough.
    expect(memory * 2 ** 20 * 0.97 - 64 * 2 ** 20).toBeGreaterThanOrEqual(shape.memoryBytes);
  });

  test('an answer that is lost makes no second machine', async () => {
    gce.script.push({ match: /^POST zones\/[^/]+\/instances$/, when: 'after', status: 503, reason: 'backendError' });
    const asked = request();
    const instance = await launch(asked);
    expect([...gce.instances.keys()]).toEqual([instance.id]);
    await provider[Symbol.asyncDispose]();
    provider = open();
    expect((await launch(asked)).id).toBe(instance.id);
    expect(gce.instances.size).toBe(1);
  });

  test('a rate limit comes as "forbidden" and is waited for', async () => {
    gce.script.push({
      match: /^POST zones\/[^/]+\/instances$/,
      when: 'before',
      status: 403,
      reason: 'rateLimitExceeded',
    });
    await launch(request());
    expect(provider.limiters.launch.throttles).toBe(1);
  });

  test('the cloud itself ends a machine whose time is up; spot machines are deleted when they are taken back', async () => {
    await provider[Symbol.asyncDispose]();
    provider = open({ maxRunDuration: '2h' });
    await launch(request({ placement: { market: 'spot' } }));
    const [made] = [...gce.instances.values()];
    expect(made?.resource['scheduling']).toMatchObject({
      provisioningModel: 'SPOT',
      instanceTerminationAction: 'DELETE',
      maxRunDuration: { seconds: '7200' },
    });
  });

  test('disks that outlived their machines are found by our labels and removed', async () => {
    await launch(request());
    const [made] = [...gce.instances.values()];
    gce.disks.set('us-east1-b/left', { name: 'left', labels: made?.resource['labels'], users: [] });
    gce.disks.set('us-east1-b/used', { name: 'used', labels: made?.resource['labels'], users: ['x'] });
    gce.disks.set('us-east1-b/strange', { name: 'strange', labels: {}, users: [] });
    const found = await provider.leftovers?.list(signal);
    expect(found?.map(({ id }) => id)).toEqual(['us-east1-b/left']);
    for (const leftover of found ?? []) await provider.leftovers?.remove(leftover, signal);
    await expect.poll(() => [...gce.disks.keys()]).toEqual(['us-east1-b/used', 'us-east1-b/strange']);
  });

  test('doctor looks for the image', async () => {
    expect((await provider.doctor(signal)).every(({ ok }) => ok)).toBe(true);
    gce.script.push({ match: /images/, when: 'before', status: 404, reason: 'notFound' });
    expect(await provider.doctor(signal)).toMatchObject([{ ok: false, fix: expect.stringContaining('publish gcp') }]);
  });
});
