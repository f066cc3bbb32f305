/** The AWS provider over moto, an EC2 that nobody of this project wrote. Needs root and a Debian mirror. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  AllocateAddressCommand,
  CreateNetworkInterfaceCommand,
  CreateVolumeCommand,
  DeleteVolumeCommand,
  DescribeInstanceAttributeCommand,
  DescribeInstancesCommand,
  DescribeVolumesCommand,
  type ResourceType,
} from '@aws-sdk/client-ec2';
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import type { Provider } from '../../src/cloud/contract.ts';
import { openAws } from '../support/fake-ec2/open.ts';
import { type MotoAccount, setUpAccount } from '../support/moto/account.ts';
import { MOTO_DEVIATIONS, MOTO_SETTINGS } from '../support/moto/deviations.ts';
import { type MotoServer, startMoto } from '../support/moto/server.ts';
import { providerSuite } from './provider-suite.ts';

const OWNER = { 'infralet.dev/cluster': 'c', 'infralet.dev/node': 'n' };

let moto: MotoServer;
let account: MotoAccount;

beforeAll(async () => {
  moto = await startMoto(AbortSignal.timeout(600_000));
  account = await setUpAccount(moto.endpoint, AbortSignal.timeout(60_000));
}, 700_000);

afterAll(async () => {
  account.client.destroy();
  await moto[Symbol.asyncDispose]();
});

interface Opened extends AsyncDisposable {
  open(): Provider;
}

async function place(owner: Readonly<Record<string, string>> = {}, more: object = {}): Promise<Opened> {
  const { maxPerCall, instanceTypes } = MOTO_SETTINGS;
  const stateDir = await mkdtemp(join(tmpdir(), 'infralet-test-'));
  const settings = { ...account.settings, instanceTypes, imageSize: '2Gi', ...more };
  return {
    open: () => openAws({ endpoint: moto.endpoint, stateDir, settings, maxPerCall, owner }),
    [Symbol.asyncDispose]: async () => await rm(stateDir, { recursive: true }),
  };
}

providerSuite(
  'aws',
  async () => {
    const opened = await place();
    let provider: Provider | undefined;
    // Of the pods and not of their machines.
    const volumes: string[] = [];
    return {
      durable: true,
      open: async () => {
        provider = opened.open();
        return provider;
      },
      volume: async ({ purchase }) => {
        const asked = { AvailabilityZone: purchase?.zone ?? '', Size: 1 };
        const { VolumeId = '' } = await account.client.send(new CreateVolumeCommand(asked));
        volumes.push(VolumeId);
        return VolumeId;
      },
      consoleReady: async (cloud, id, signal) => await cloud.console(id, 1000, signal),
      leftovers: async () => {
        const known = await provider?.describe({ by: 'tags', tags: {} }, AbortSignal.timeout(10_000));
        const machines = new Set<string | undefined>(known?.map(({ id }) => id));
        const alive = (await account.alive()).filter(({ machine }) => !machines.has(machine)).map(({ id }) => id);
        return alive.filter((id) => !volumes.includes(id));
      },
      [Symbol.asyncDispose]: async () => {
        for (const VolumeId of volumes) await account.client.send(new DeleteVolumeCommand({ VolumeId }));
        await opened[Symbol.asyncDispose]();
      },
    };
  },
  { offers: ['leftovers', 'explain', 'power', 'volumes', 'figures'], against: 'moto' },
);

describe('what moto understands', () => {
  const signal = AbortSignal.timeout(300_000);

  test.each(['on-demand', 'spot'] as const)('of a launch on the %s market', async (market) => {
    onTestFailed(() => {
      process.stderr.write(moto.log());
    });
    await using opened = await place(OWNER);
    await using provider = opened.open();
    const userData = '{"version":1,"text":"ä"}';
    const shape = { cpuMillis: 1000, memoryBytes: 2 ** 28, diskBytes: 3 * 2 ** 30 };
    const placement = { market, zones: ['us-east-1b'] };
    const request = { token: `moto-${market}`, tags: { ...OWNER, pod: 'p' }, shape, userData, placement };
    const [result] = await provider.launch([request], signal);
    if (!result?.ok) throw new Error('not launched', { cause: result?.error });
    const { id } = result.instance;
    expect(result.instance.purchase).toMatchObject({ zone: 'us-east-1b', market });

    const { client, settings } = account;
    const found = await client.send(new DescribeInstancesCommand({ InstanceIds: [id] }));
    const instance = found.Reservations?.[0]?.Instances?.[0];
    expect(instance).toMatchObject({
      ImageId: settings.imageId,
      SubnetId: settings.subnets[1],
      SecurityGroups: [{ GroupId: settings.securityGroups[0] }],
      Placement: { AvailabilityZone: 'us-east-1b' },
    });
    expect(instance?.InstanceLifecycle).toBe(market === 'spot' ? 'spot' : undefined);
    expect(tagMap(instance?.Tags)).toMatchObject({ ...OWNER, pod: 'p' });

    const attribute = async (Attribute: 'userData' | 'instanceInitiatedShutdownBehavior') =>
      await client.send(new DescribeInstanceAttributeCommand({ InstanceId: id, Attribute }));
    const { UserData } = await attribute('userData');
    expect(Buffer.from(UserData?.Value ?? '', 'base64').toString()).toBe(userData);
    const { InstanceInitiatedShutdownBehavior: behaviour } = await attribute('instanceInitiatedShutdownBehavior');
    expect(behaviour?.Value).toBe('terminate');

    const Filters = [{ Name: 'attachment.instance-id', Values: [id] }];
    const { Volumes } = await client.send(new DescribeVolumesCommand({ Filters }));
    expect(Volumes).toMatchObject([{ Size: 5, VolumeType: 'gp3', Encrypted: true }]);
    expect(instance?.BlockDeviceMappings).toMatchObject([
      { DeviceName: instance?.RootDeviceName, Ebs: { VolumeId: Volumes?.[0]?.VolumeId, DeleteOnTermination: true } },
    ]);
    expect(tagMap(Volumes?.[0]?.Tags)).toMatchObject({ ...OWNER, pod: 'p' });

    await provider.terminate([id], signal);
    expect(await account.alive()).toEqual([]);
  });

  test('of an interface that is asked for with an address for the pod', async () => {
    await using opened = await place(OWNER, { podAddress: 'direct' });
    await using provider = opened.open();
    const shape = { cpuMillis: 1000, memoryBytes: 2 ** 28, diskBytes: 3 * 2 ** 30 };
    const placement = { zones: ['us-east-1b'] };
    const request = { token: 'moto-direct', tags: OWNER, shape, userData: '{}', placement };
    const [result] = await provider.launch([request], signal);
    if (!result?.ok) throw new Error('not launched', { cause: result?.error });
    const { id, podLink } = result.instance;
    const { client, settings } = account;
    const found = await client.send(new DescribeInstancesCommand({ InstanceIds: [id] }));
    const instance = found.Reservations?.[0]?.Instances?.[0];
    expect(instance?.NetworkInterfaces).toMatchObject([
      { SubnetId: settings.subnets[1], Groups: [{ GroupId: settings.securityGroups[0] }] },
    ]);
    // What it would be for a machine that was launched before the setting was made.
    expect(podLink).toEqual({ kind: 'vxlan', address: instance?.PrivateIpAddress });
    await provider.terminate([id], signal);
    expect(await account.alive()).toEqual([]);
  });

  test('of what a sweep looks for and removes', async () => {
    await using opened = await place(OWNER);
    await using provider = opened.open();
    const { client, settings } = account;
    const make = async (tags: Readonly<Record<string, string>>): Promise<readonly (string | undefined)[]> => {
      const Tags = Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
      const tagged = (type: ResourceType) => ({ TagSpecifications: [{ ResourceType: type, Tags }] });
      const volume = { AvailabilityZone: 'us-east-1a', Size: 1, ...tagged('volume') };
      const nic = { SubnetId: settings.subnets[0], ...tagged('network-interface') };
      const { VolumeId } = await client.send(new CreateVolumeCommand(volume));
      const { NetworkInterface } = await client.send(new CreateNetworkInterfaceCommand(nic));
      const { AllocationId } = await client.send(
        new AllocateAddressCommand({ Domain: 'vpc', ...tagged('elastic-ip') }),
      );
      return [VolumeId, NetworkInterface?.NetworkInterfaceId, AllocationId];
    };
    const ours = await make(OWNER);
    await make({ ...OWNER, 'infralet.dev/node': 'other' });
    const { leftovers } = provider;
    if (!leftovers) throw new Error('the provider finds no leftovers');
    const found = await leftovers.list(signal);
    expect(found.map(({ kind, id }) => [kind, id])).toEqual(
      (['disk', 'interface', 'address'] as const).map((kind, index) => [kind, ours[index]]),
    );
    for (const leftover of found) expect(leftover.tags).toMatchObject(OWNER);
    for (const leftover of [...found, ...found]) await leftovers.remove(leftover, signal);
    expect(await leftovers.list(signal)).toEqual([]);
  });

  test('of the permission that the doctor asks for', async () => {
    await using opened = await place();
    await using provider = opened.open();
    const checks = await provider.doctor(signal);
    expect(checks.filter(({ name }) => name.startsWith('aws')).map(({ ok }) => ok)).toEqual([true, true]);
  });
});

for (const { what, therefore, stillSo } of MOTO_DEVIATIONS) {
  test(`moto deviates: ${what}; therefore ${therefore}`, async () => {
    expect(await stillSo(account)).toBe(true);
  });
}

function tagMap(
  tags: readonly { readonly Key?: string | undefined; readonly Value?: string | undefined }[] | undefined,
): Readonly<Record<string, string | undefined>> {
  return Object.fromEntries((tags ?? []).map(({ Key = '', Value }) => [Key, Value]));
}
