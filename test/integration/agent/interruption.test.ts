/** Spot machines: the agent hears of their end from the metadata service and tells whoever watches. */
import { expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import type { AgentChannel, GuestEvent } from '../../../src/guest/channel.ts';
import { AgentWorld, newIdentity, soon } from '../../support/agent/machine.ts';
import { type MetadataMachine, startMetadataService } from '../../support/metadata-service.ts';

const ID = { ec2: 'i-0123456789abcdef0', gce: 'europe-west3-a/infralet-17' } as const;

async function notice(channel: AgentChannel): Promise<GuestEvent> {
  for await (const event of channel.watch(100, AbortSignal.timeout(20_000))) {
    if (event.kind === 'interruption') return event;
  }
  throw new Error('the watch has ended');
}

async function enrolled(world: AgentWorld, cloud: 'ec2' | 'gce', spot: () => MetadataMachine['spot']) {
  const dialer = world.dialer(await world.pki());
  const [token, identity] = [dialer.newToken(), newIdentity()];
  const userData = dialer.userData(token, identity);
  const service = world.use(await startMetadataService(cloud, () => ({ id: ID[cloud], userData, spot: spot() })));
  const machine = await world.cloudMachine(service.url);
  const channel = world.use(await dialer.enrol(machine.address, identity, token, soon()));
  return { service, machine, channel };
}

test.each([
  ['ec2', 120_000],
  ['gce', 30_000],
] as const)('a spot machine of %s tells of its end, and tells it again to who comes later', async (cloud, noticeMs) => {
  await using world = await AgentWorld.create();
  let announced: number | undefined;
  const { channel, service } = await enrolled(world, cloud, () => ({ notice: announced }));
  const first = notice(channel);
  // It has looked, and there was nothing.
  const looked = cloud === 'ec2' ? 'spot/instance-action 404' : 'instance/preempted 200';
  await until(() => service.requests.some((line) => line.endsWith(looked)) || undefined, {
    everyMs: 10,
    signal: soon().signal,
  });
  announced = Date.now() + noticeMs;
  const told = await first;
  expect(told).toMatchObject({ kind: 'interruption', action: 'terminate' });
  const left = told.kind === 'interruption' ? told.noticeMs : 0;
  expect(left).toBeLessThanOrEqual(noticeMs);
  expect(left).toBeGreaterThan(noticeMs - 8000);
  const later = await notice(channel);
  expect(later.kind === 'interruption' ? later.noticeMs : left).toBeLessThan(left);
});

test('a machine that is no spot machine is asked for once, and never tells', async () => {
  await using world = await AgentWorld.create();
  const { service, machine } = await enrolled(world, 'ec2', () => undefined);
  await until(() => service.requests.find((line) => line.includes('instance-life-cycle')), {
    everyMs: 10,
    signal: soon().signal,
  });
  await machine.kill();
  expect(service.requests.join('\n')).not.toContain('instance-action');
});
