/** Who gets in and who does not: enrolment, certificates, strangers. Real agent, real TLS. */
import { readFileSync, statSync } from 'node:fs';
import { connect as tcpConnect } from 'node:net';
import { join } from 'node:path';
import { type ConnectionOptions, connect as tlsConnect } from 'node:tls';
import { status } from '@grpc/grpc-js';
import { expect, test } from 'vitest';
import { systemClock, until } from '../../../src/base/time.ts';
import { clientFactory } from '../../../src/guest/client.ts';
import { AgentCredentials } from '../../../src/guest/credentials.ts';
import type { NodePki } from '../../../src/pki/authority.ts';
import { agentUri } from '../../../src/rpc/agent-protocol.ts';
import { AgentWorld, newIdentity, soon } from '../../support/agent/machine.ts';

const TIMES = { firstByteMs: 500, handshakeMs: 5000 };

/** Connects and tells how the connection ended: in TLS 1.3 a server refuses a client after the client's handshake. */
async function outcome(options: ConnectionOptions): Promise<string> {
  return await new Promise((resolve) => {
    const socket = tlsConnect({ ALPNProtocols: ['h2'], rejectUnauthorized: false, ...options });
    socket.on('error', (error) => resolve(error.message));
    socket.on('close', () => resolve('closed'));
    // An HTTP/2 server speaks first: SETTINGS.
    socket.on('data', () => {
      resolve('accepted');
      socket.destroy();
    });
  });
}

test('an agent enrols once, and its token works once', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel, dialer, identity, token } = await world.enrolled();

  const answer = await channel.status(soon());
  expect(Number(answer.agentResidentBytes)).toBeGreaterThan(10_000_000);

  await expect(dialer.enrol(machine.address, identity, token, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
  });
  expect(world.log.warnings).toContain('enrolment refused');
  await machine.logged({ msg: 'refused', rpc: 'Enrol' });

  const again = world.use(await dialer.connect(machine.address, identity, soon()));
  await again.status(soon());
});

test('a second machine with the same user data is refused and told so', async () => {
  await using world = await AgentWorld.create();
  const { dialer, identity, token } = await world.enrolled();
  const twin = await world.machine(dialer.userData(token, identity));
  await expect(dialer.enrol(twin.address, identity, token, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
    message: expect.stringContaining('token was used before'),
  });
  expect(world.log.warnings).toContain('token was used before');
});

test('an agent that does not know the token is refused', async () => {
  await using world = await AgentWorld.create();
  const dialer = world.dialer(await world.pki());
  const identity = newIdentity();
  const machine = await world.machine(dialer.userData(dialer.newToken(), identity));
  const other = dialer.newToken();
  await expect(dialer.enrol(machine.address, identity, other, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
    message: expect.stringContaining('does not know the token'),
  });
  expect(world.used.size).toBe(0);
});

test('before enrolment every other call is refused', async () => {
  await using world = await AgentWorld.create();
  const pki = await world.pki();
  const dialer = world.dialer(pki);
  const machine = await world.machine(dialer.userData(dialer.newToken(), newIdentity()));
  const credentials = new AgentCredentials(pki, undefined, TIMES, world.log);
  const client = clientFactory(1 << 20, 1 << 20)(machine.address, credentials);
  world.use({ [Symbol.dispose]: () => client.close() });
  const code = async (call: (done: (error: { code: number } | null) => void) => unknown): Promise<number> =>
    await new Promise((resolve) => call((error) => resolve(error?.code ?? 0)));

  expect(await code((done) => client.Status({}, done))).toBe(status.FAILED_PRECONDITION);
  expect(await code((done) => client.Renew({}, done))).toBe(status.FAILED_PRECONDITION);
  expect(await code((done) => client.Call({ method: '/runtime.v1.RuntimeService/Version' }, done))).toBe(
    status.FAILED_PRECONDITION,
  );
  expect(await code((done) => client.Install({ chain: [] }, done))).toBe(status.PERMISSION_DENIED);
  expect(await code((done) => client.PutFiles(done).end())).toBe(status.FAILED_PRECONDITION);
  for (const stream of [
    () => client.Watch({ heartbeatMs: 1000 }),
    () => client.ReadFile({ root: 'ROOT_LOGS', path: 'x' }),
    () => client.Incoming({ service: 'images' }),
  ]) {
    expect(
      await code((done) =>
        stream()
          .on('error', done)
          .on('end', () => done(null))
          .resume(),
      ),
    ).toBe(status.FAILED_PRECONDITION);
  }
  await machine.logged({ msg: 'refused', rpc: 'Watch' });
});

test('a daemon of another node is refused by the agent and says so itself', async () => {
  await using world = await AgentWorld.create();
  const { machine, identity, token } = await world.enrolled();
  const stranger = world.dialer(await world.pki('other-node'));
  await expect(stranger.connect(machine.address, identity, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
  });
  // In an enrolment any agent is listened to; here it is the agent that does not let the daemon in.
  await expect(stranger.enrol(machine.address, identity, token, soon())).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await machine.logged({ msg: 'refused', reason: 'wrong CA' });
  expect(world.log.warnings).toContain('CA');
});

test('a channel to one machine does not accept another machine in its place', async () => {
  await using world = await AgentWorld.create();
  const pki = await world.pki();
  const first = await world.enrolled({ pki });
  const second = await world.enrolled({ pki });
  await expect(first.dialer.connect(second.machine.address, first.identity, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
    message: expect.stringContaining('another machine'),
  });
});

test('an agent’s own certificate does not open another agent', async () => {
  await using world = await AgentWorld.create();
  const pki = await world.pki();
  const thief = await world.enrolled({ pki });
  const victim = await world.enrolled({ pki });
  const stolen = JSON.parse(readFileSync(join(thief.machine.dir, 'run/infralet/agent.json'), 'utf8')) as {
    key: string;
    chain: string;
  };
  expect(await outcome({ ...victim.machine.address, key: stolen.key, cert: stolen.chain })).not.toBe('accepted');
  await victim.machine.logged({ msg: 'refused', reason: 'the certificate is not for clients' });
});

test('strangers, old TLS and garbage are refused and logged; the agent goes on', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel } = await world.enrolled();
  const client = await (await world.pki()).client();
  const ours = { key: client.key, cert: client.certificate };

  expect(await outcome({ ...machine.address, ...ours })).toBe('accepted');
  expect(await outcome(machine.address)).not.toBe('accepted');
  await machine.logged({ msg: 'refused', reason: 'a stranger: no client certificate' });
  expect(await outcome({ ...machine.address, ...ours, maxVersion: 'TLSv1.2' })).not.toBe('accepted');
  await machine.logged({ msg: 'refused', reason: 'TLS older than 1.3' });

  const garbage = tcpConnect(machine.address);
  garbage.on('error', () => undefined);
  garbage.write(Buffer.alloc(100_000, 0x7f));
  await until(() => garbage.closed || undefined, { everyMs: 10, signal: AbortSignal.timeout(5000) });
  await machine.logged({ msg: 'refused', reason: 'not TLS' });

  await channel.status(soon());
});

test('silent connections do not keep the daemon out', async () => {
  await using world = await AgentWorld.create();
  const { machine, dialer, identity } = await world.enrolled();
  const silent = Array.from({ length: 8 }, () => tcpConnect(machine.address).on('error', () => undefined));
  world.use({ [Symbol.dispose]: () => silent.forEach((socket) => void socket.destroy()) });
  world.use(await dialer.connect(machine.address, identity, soon()));
});

test('an expired agent is refused and logged', async () => {
  await using world = await AgentWorld.create();
  // Certificates of the past: this clock stands two hours back when it signs.
  const past = { ...systemClock, now: () => Date.now() - 7_200_000 };
  const pki = await world.pki('node', { clock: past, clockSkew: 86_400_000, leafLife: 3_600_000 });
  const now = await world.pki('node');
  const dialer = world.dialer(now);
  const identity = newIdentity();
  const token = dialer.newToken();
  const machine = await world.machine(dialer.userData(token, identity));
  const signing: NodePki = {
    ...now,
    client: () => now.client(),
    signAgent: (csr, uri) => pki.signAgent(csr, uri),
  };
  // The first connection is the one on which the key was proven; every later one has to show the certificate.
  world.use(await world.dialer(signing).enrol(machine.address, identity, token, soon()));
  await expect(dialer.connect(machine.address, identity, soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
    message: expect.stringContaining('expired'),
  });
  expect(world.log.warnings).toContain('expired');
});

test('an expired daemon certificate is refused and logged by the agent', async () => {
  await using world = await AgentWorld.create();
  const { machine } = await world.enrolled();
  const past = { ...systemClock, now: () => Date.now() - 7_200_000 };
  const old = await (await world.pki('node', { clock: past, leafLife: 3_600_000 })).client();
  expect(await outcome({ ...machine.address, key: old.key, cert: old.certificate })).not.toBe('accepted');
  await machine.logged({ msg: 'refused', reason: 'expired certificate' });
});

test('the channel renews the agent’s certificate by itself, and calls go on meanwhile', async () => {
  await using world = await AgentWorld.create();
  const pki = await world.pki('node', { leafLife: 8000, renewBefore: 6000 });
  const { machine, channel, identity } = await world.enrolled({ pki });
  const file = join(machine.dir, 'run/infralet/agent.json');
  const first = readFileSync(file, 'utf8');
  await machine.logged({ msg: 'certificate renewed' });
  const second = JSON.parse(readFileSync(file, 'utf8')) as { key: string };
  expect(second.key).not.toBe((JSON.parse(first) as { key: string }).key);
  await channel.status(soon());

  const credentials = new AgentCredentials(
    pki,
    agentUri('test', identity.sandboxId, identity.instanceId),
    TIMES,
    world.log,
  );
  const client = clientFactory(1 << 20, 1 << 20)(machine.address, credentials);
  world.use({ [Symbol.dispose]: () => client.close() });
  await new Promise((resolve, reject) => client.Status({}, (error, reply) => (error ? reject(error) : resolve(reply))));
  expect(credentials.peer?.notAfter).toBeGreaterThan(Date.now() + 1000);
});

test('an agent killed with -9 comes back enrolled, its key readable by nobody else', async () => {
  await using world = await AgentWorld.create();
  const { machine, channel, dialer, identity } = await world.enrolled();
  const file = join(machine.dir, 'run/infralet/agent.json');
  expect(statSync(file).mode & 0o777).toBe(0o600);
  await machine.kill();
  await expect(channel.status(soon())).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  await machine.start();
  await until(() => channel.status(soon()).catch(() => undefined), {
    everyMs: 50,
    signal: AbortSignal.timeout(10_000),
  });
  world.use(await dialer.connect(machine.address, identity, soon()));
  await expect(dialer.enrol(machine.address, identity, dialer.newToken(), soon())).rejects.toMatchObject({
    code: 'PERMISSION_DENIED',
  });
});

test('an agent that does not listen is UNAVAILABLE, also behind a forwarder that accepts for it', async () => {
  await using world = await AgentWorld.create();
  const dialer = world.dialer(await world.pki(), { times: { firstByteMs: 100, handshakeMs: 1000 } });
  const { createServer } = await import('node:net');
  const mute = createServer(() => undefined);
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve));
  world.use({ [Symbol.dispose]: () => void mute.close() });
  const address = mute.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  const started = performance.now();
  await expect(
    dialer.enrol({ host: '127.0.0.1', port }, newIdentity(), dialer.newToken(), soon()),
  ).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  expect(performance.now() - started).toBeLessThan(3000);
  await expect(dialer.connect({ host: '127.0.0.1', port: 1 }, newIdentity(), soon())).rejects.toMatchObject({
    code: 'UNAVAILABLE',
  });
});

test('a forwarder that swallows the first connections delays enrolment by little, a slow one does not prevent it', async () => {
  await using world = await AgentWorld.create();
  const dialer = world.dialer(await world.pki(), { times: { firstByteMs: 100, handshakeMs: 5000 } });
  const { createServer, connect } = await import('node:net');
  for (const [swallowed, delayMs] of [
    [3, 0],
    [0, 1000],
  ] as const) {
    const identity = newIdentity();
    const token = dialer.newToken();
    const machine = await world.machine(dialer.userData(token, identity));
    let seen = 0;
    const forwarder = createServer((socket) => {
      seen += 1;
      socket.on('error', () => undefined);
      if (seen <= swallowed) return;
      setTimeout(() => {
        const onward = connect(machine.address).on('error', () => undefined);
        socket.pipe(onward).pipe(socket);
      }, delayMs);
    });
    await new Promise<void>((resolve) => forwarder.listen(0, '127.0.0.1', resolve));
    world.use({ [Symbol.dispose]: () => void forwarder.close() });
    const address = forwarder.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    world.use(await dialer.enrol({ host: '127.0.0.1', port }, identity, token, soon()));
    expect(seen).toBeGreaterThan(swallowed);
  }
});
