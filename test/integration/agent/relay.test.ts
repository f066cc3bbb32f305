/** CRI calls and events through the agent, against a real CRI server on a unix socket. */
import { expect, test } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { until } from '../../../src/base/time.ts';
import type { GuestEvent } from '../../../src/guest/channel.ts';
import { clientFactory } from '../../../src/guest/client.ts';
import { AgentCredentials } from '../../../src/guest/credentials.ts';
import { agentUri, largestReply } from '../../../src/rpc/agent-protocol.ts';
import { AgentWorld, soon } from '../../support/agent/machine.ts';

const MIB = 1024 * 1024;

test('calls reach containerd, and its codes and messages come back as they are', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  await expect(channel.cri('Version', {}, soon())).rejects.toMatchObject({ code: 'UNAVAILABLE' });

  await world.containerd(machine.dir);
  await until(() => channel.cri('Version', {}, soon()).catch(() => undefined), {
    everyMs: 50,
    signal: AbortSignal.timeout(5000),
  });
  expect(await channel.cri('Version', {}, soon())).toMatchObject({ runtimeName: 'fake' });
  await expect(channel.cri('ContainerStatus', { containerId: 'c1' }, soon())).rejects.toMatchObject({
    code: 'NOT_FOUND',
    message: 'container c1 not found in store',
  });
  await expect(channel.cri('ImageStatus', {}, soon())).rejects.toMatchObject({ code: 'UNIMPLEMENTED' });
  const answer = await channel.cri('ExecSync', { containerId: 'c1', cmd: ['héllo', 'world'] }, soon());
  expect(answer.stdout.toString()).toBe('héllo world');

  const status = await until(
    async () => {
      const answer = await channel.status(soon());
      return answer.containerdReady && answer.phases['containerd'] ? answer : undefined;
    },
    { everyMs: 50, signal: AbortSignal.timeout(5000) },
  );
  expect(Number(status.phases['listening'])).toBeGreaterThan(0);
});

test('only RPCs on the list are relayed', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  await world.containerd(machine.dir);
  for (const method of ['UpdateRuntimeConfig', 'CheckpointContainer', 'GetContainerEvents'] as const) {
    await expect(channel.cri(method, {}, soon())).rejects.toMatchObject({ code: 'PERMISSION_DENIED' });
  }
});

test('deadlines and cancellations are carried on to containerd', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const containerd = await world.containerd(machine.dir);
  await until(() => channel.cri('Version', {}, soon()).catch(() => undefined), {
    everyMs: 50,
    signal: AbortSignal.timeout(5000),
  });

  const started = performance.now();
  await expect(
    channel.cri('ExecSync', { containerId: 'late', cmd: ['hang'] }, { ...soon(), timeoutMs: 500 }),
  ).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
  expect(performance.now() - started).toBeLessThan(3000);
  await until(() => containerd.cancelled.includes('late') || undefined, {
    everyMs: 10,
    signal: AbortSignal.timeout(5000),
  });

  const leaving = new AbortController();
  const call = channel.cri('ExecSync', { containerId: 'left', cmd: ['hang'] }, { ...soon(), signal: leaving.signal });
  await channel.cri('Version', {}, soon());
  leaving.abort(new InfraletError('CANCELLED', 'the kubelet left'));
  await expect(call).rejects.toMatchObject({ code: 'CANCELLED', message: 'the kubelet left' });
  await until(() => containerd.cancelled.includes('left') || undefined, {
    everyMs: 10,
    signal: AbortSignal.timeout(5000),
  });
});

test('messages up to the limit pass, larger ones are refused on every leg and the channel lives on', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  await world.containerd(machine.dir);
  const exec = async (cmd: readonly string[]): Promise<Buffer> =>
    (await channel.cri('ExecSync', { containerId: 'c', cmd: [...cmd] }, soon())).stdout;
  await until(() => exec(['a']).catch(() => undefined), { everyMs: 50, signal: AbortSignal.timeout(5000) });

  expect((await exec(['big', String(15 * MIB)])).length).toBe(15 * MIB);
  expect((await exec(['x'.repeat(15 * MIB)])).length).toBe(15 * MIB);
  // Never hands megabytes to an assertion: printing them when it fails takes all memory there is.
  const outcome = async (cmd: readonly string[]): Promise<number | string> =>
    await exec(cmd).then(
      ({ length }) => length,
      (error: unknown) => InfraletError.from(error).code,
    );
  // A command's two outputs may have the size of a message each.
  const most = largestReply(16 * MIB);
  expect(await outcome(['big', String(most - MIB)])).toBe(most - MIB);
  expect(await outcome(['big', String(most + MIB)])).toBe('RESOURCE_EXHAUSTED');
  expect(await outcome(['x'.repeat(17 * MIB)])).toBe('RESOURCE_EXHAUSTED');
  expect((await exec(['still', 'here'])).toString()).toBe('still here');
});

test('the agent refuses oversized messages of a client that does not bound them itself', async () => {
  await using world = await AgentWorld.create();
  const pki = await world.pki();
  const { machine, identity } = await world.enrolled({ pki, maxMessage: MIB });
  const uri = agentUri('test', identity.sandboxId, identity.instanceId);
  const credentials = new AgentCredentials(pki, uri, { firstByteMs: 500, handshakeMs: 5000 }, world.log);
  const client = clientFactory(64 * MIB, 64 * MIB)(machine.address, credentials);
  world.use({ [Symbol.dispose]: () => client.close() });
  const request = { method: '/runtime.v1.RuntimeService/Version', payload: Buffer.alloc(2 * MIB) };
  const code = await new Promise((resolve) => client.Call(request, (error) => resolve(error?.code)));
  expect(code).toBe(8);
});

test('watch: heartbeats, events of one subscription for all watchers, resync when containerd comes back', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const containerd = await world.containerd(machine.dir);
  const leave = new AbortController();
  const collect = (): { readonly seen: GuestEvent[]; readonly done: Promise<void> } => {
    const seen: GuestEvent[] = [];
    const done = (async () => {
      for await (const event of channel.watch(100, leave.signal)) seen.push(event);
    })();
    return { seen, done };
  };
  const has = async (seen: readonly GuestEvent[], match: (event: GuestEvent) => boolean, times = 1): Promise<void> => {
    await until(() => seen.filter(match).length >= times || undefined, {
      everyMs: 10,
      signal: AbortSignal.timeout(10_000),
    });
  };
  const resync = (event: GuestEvent): boolean => event.kind === 'resync';
  const stopped = (id: string) => (event: GuestEvent) => event.kind === 'container' && event.event.containerId === id;

  const first = collect();
  const second = collect();
  await has(first.seen, resync);
  await has(second.seen, resync);
  await containerd.emit({ containerId: 'c1', containerEventType: 'CONTAINER_STOPPED_EVENT' });
  await has(first.seen, stopped('c1'));
  await has(second.seen, stopped('c1'));
  expect(containerd.subscriptions).toBe(1);
  await has(first.seen, (event) => event.kind === 'heartbeat', 3);

  containerd.stop();
  await containerd.start();
  await has(first.seen, resync, 2);
  await containerd.emit({ containerId: 'c2', containerEventType: 'CONTAINER_STOPPED_EVENT' });
  await has(second.seen, stopped('c2'));
  expect(first.seen.filter(stopped('c1'))).toHaveLength(1);

  leave.abort();
  await first.done;
  await second.done;
});

test('watch ends with an error when the agent dies, and works again after it is back', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const watch = async (until?: number): Promise<number> => {
    let count = 0;
    for await (const event of channel.watch(100, AbortSignal.timeout(20_000))) {
      if (event.kind === 'heartbeat') count += 1;
      if (count === until) break;
      if (count === 2 && until === undefined) await machine.kill();
    }
    return count;
  };
  await expect(watch()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await machine.start();
  expect(await until(() => watch(3).catch(() => undefined), { everyMs: 50, signal: AbortSignal.timeout(10_000) })).toBe(
    3,
  );
});

test('a watcher that does not read costs bounded memory and gets a resync for what it missed', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const containerd = await world.containerd(machine.dir);
  const iterator = channel.watch(60_000, AbortSignal.timeout(60_000))[Symbol.asyncIterator]();
  let next = await iterator.next();
  while (!next.done && next.value.kind !== 'resync') next = await iterator.next();
  // Nobody reads from here on.
  const annotations = { padding: 'x'.repeat(8 * 1024) };
  const before = Number((await channel.status(soon())).agentResidentBytes);
  for (let index = 0; index < 12_000; index += 1) {
    await containerd.emit({ containerId: `c${index}`, containersStatuses: [{ annotations }] });
  }
  const after = Number((await channel.status(soon())).agentResidentBytes);
  expect(after - before).toBeLessThan(80 * MIB);
  const kinds = new Set<string>();
  let count = 0;
  do {
    next = await iterator.next();
    count += 1;
    if (!next.done) kinds.add(next.value.kind);
  } while (!next.done && next.value.kind !== 'resync');
  expect(kinds).toContain('resync');
  expect(count).toBeLessThan(11_000);
});
