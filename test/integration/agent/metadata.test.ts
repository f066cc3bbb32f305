/** The agent on a cloud: user data by the metadata service, in whichever machine it finds itself. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import { machineToken, shareUserData } from '../../../src/rpc/agent-protocol.ts';
import { AgentWorld, newIdentity, soon } from '../../support/agent/machine.ts';
import { startMetadataService } from '../../support/metadata-service.ts';

const INSTANCE = { ec2: 'i-0123456789abcdef0', gce: 'europe-west3-a/infralet-17' } as const;

test.each(['ec2', 'gce'] as const)(
  'a machine of %s enrols with the user data of its metadata service',
  async (cloud) => {
    await using world = await AgentWorld.create();
    const dialer = world.dialer(await world.pki());
    const token = dialer.newToken();
    const identity = newIdentity();
    let userData: string | undefined;
    await using service = await startMetadataService(cloud, () => ({ id: INSTANCE[cloud], userData }));
    // The service answers before it knows what there is to say, as after a resume.
    const starting = world.cloudMachine(service.url);
    await until(() => service.requests.some((line) => line.endsWith('404')) || undefined, {
      everyMs: 10,
      signal: soon().signal,
    });
    userData = dialer.userData(token, identity);
    const machine = await starting;
    await using channel = await dialer.enrol(machine.address, identity, token, soon());
    expect((await channel.status(soon())).agentVersion).not.toBe('');
    const asked = service.requests.filter((line) => line.endsWith('200'));
    expect(asked).toContain(
      cloud === 'ec2'
        ? 'PUT /latest/api/token 200'
        : 'GET /computeMetadata/v1/instance/attributes/infralet-user-data 200',
    );
  },
);

test.each(['ec2', 'gce'] as const)('machines of %s that share their user data have a token each', async (cloud) => {
  await using world = await AgentWorld.create();
  const dialer = world.dialer(await world.pki());
  const identity = newIdentity();
  const seed = 'a-seed-that-is-long-enough-to-be-one';
  const userData = shareUserData(dialer.userData(dialer.newToken(), identity), seed);
  await using service = await startMetadataService(cloud, () => ({ id: INSTANCE[cloud], userData }));
  const machine = await world.cloudMachine(service.url);
  const other = machineToken(seed, 'i-another');
  await expect(dialer.enrol(machine.address, identity, other, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
  });
  await using channel = await dialer.enrol(machine.address, identity, machineToken(seed, INSTANCE[cloud]), soon());
  expect((await channel.status(soon())).agentVersion).not.toBe('');
});

test.each([
  ['no user data', undefined],
  ['wrong user data', '{"version":1}'],
  ['user data without an end', 'x'.repeat(100_000)],
])('a machine with %s powers itself off', async (_case, userData) => {
  await using world = await AgentWorld.create();
  const off = join(world.dir, 'off');
  writeFileSync(off, `#!/bin/sh\necho "$@" >${off}.args\n`, { mode: 0o755 });
  await using service = await startMetadataService('ec2', () => ({ id: INSTANCE.ec2, userData }));
  await expect(world.cloudMachine(service.url, ['--metadata-wait=300', '--power-off', off])).rejects.toThrow(
    'powers itself off',
  );
  expect(readFileSync(`${off}.args`, 'utf8')).toBe('-f\n');
});
