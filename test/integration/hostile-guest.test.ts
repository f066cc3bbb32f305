/**
 * Machines that lie. A node in a process of its own runs one honest pod and, one after the other, pods whose agents speak the
 * real protocol and break its rules. The node stays up within bounded memory, the honest pod notices nothing, and who breaks
 * the rules is cut off with a reason that `infralet why` shows.
 */
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { certificateRequest, newKey } from '../../src/agent/certificate.ts';
import { until } from '../../src/base/time.ts';
import { loadAgent, loadCri } from '../../src/rpc/load.ts';
import { flood, type Lies, type LyingAgent } from '../support/hostile/agent.ts';
import { NodeUnderAttack } from '../support/hostile/node.ts';

let signal: AbortSignal;
const { RuntimeService } = loadCri();
const { Agent } = loadAgent();

let node: NodeUnderAttack;
let honest: { readonly id: string; readonly agent: LyingAgent };
let before: number;
let pods = 0;

beforeEach(() => {
  signal = AbortSignal.timeout(110_000);
});
beforeAll(async () => {
  node = await NodeUnderAttack.start();
  const id = await node.ask<string>('run', 'honest');
  await node.ask('contain', id);
  if (!node.agent) throw new Error('no agent was started');
  honest = { id, agent: node.agent };
  before = (await node.ask<{ now: number }>('memory')).now;
});
afterAll(async () => {
  await node[Symbol.asyncDispose]();
});

interface Story {
  readonly reason: string;
  readonly text: string;
}

async function why(pod: string): Promise<Story> {
  const found = await node.ask<{ reason: string; verdict: { kind: string } }>('why', pod);
  return { reason: found.reason, text: JSON.stringify(found) };
}

/** Runs a pod whose machine lies; with a container where that matters. */
async function attack(lies: Lies, contain = false): Promise<{ readonly pod: string; readonly id: string }> {
  pods += 1;
  const pod = `pod-${pods}`;
  node.lies = lies;
  const id = await node.ask<string>('run', pod);
  if (contain) await node.ask('contain', id);
  node.agent?.arm();
  return { pod, id };
}

/** The pod has failed, and says why. */
async function cutOff(pod: string, id: string, reason: RegExp): Promise<void> {
  const failed = async () => ((await node.ask<{ ready: boolean }>('state', id)).ready ? undefined : true);
  await until(failed, { everyMs: 50, signal });
  const story = await why(pod);
  expect(story.reason).toMatch(/^cut off: its machine broke the rules 3 times, the last time so: /);
  expect(story.reason).toMatch(reason);
  expect(story.text).toContain('breach 1 of 3 of the rules');
  await node.ask('remove', id);
}

/** The rest of the node, and how much of the host it takes. */
async function untouched(): Promise<void> {
  const asked = performance.now();
  expect(await node.ask('state', honest.id)).toEqual({ ready: true, containers: ['CONTAINER_RUNNING'] });
  expect(performance.now() - asked).toBeLessThan(2000);
  // A list that has come is a channel that works.
  const seen = honest.agent.guest.asked;
  await until(async () => ((await node.ask('stats', honest.id)) ? true : undefined), { everyMs: 50, signal });
  expect(honest.agent.guest.asked).toBeGreaterThanOrEqual(seen);
  const { largest } = await node.ask<{ largest: number }>('memory');
  expect(largest - before, 'memory that the node has taken').toBeLessThan(600 * 2 ** 20);
}

const event = (bytes: number) => ({
  containerEvent: RuntimeService.service.GetContainerEvents.responseSerialize({
    containersStatuses: [{ id: 'x', message: 'm'.repeat(bytes) }],
  }),
});

describe('a machine that', () => {
  test.each([
    { what: 'repeats itself', message: () => ({ resync: {} }) },
    { what: 'tells of endless events', message: () => event(1000) },
    { what: 'tells of events as large as they may be', message: () => event(900_000) },
    {
      what: 'sends samples of thousands of containers',
      message: () => ({ sample: { containers: Array.from({ length: 5000 }, () => ({ id: 'x' })) } }),
    },
  ])('$what without end is cut off', async ({ message }) => {
    const made = message();
    const { pod, id } = await attack((agent) => ({
      Watch: (call) => void agent.armed.then(() => flood(call, () => made)),
    }));
    await cutOff(pod, id, /floods its node with events/);
    await untouched();
  });

  test.each([
    { what: 'events', message: event(8_000_000) },
    { what: 'samples', message: { sample: { containers: Array.from({ length: 2_000_000 }, () => ({})) } } },
  ])('sends $what that are larger than any can be is cut off, and they are not even parsed', async ({ message }) => {
    // Once: making it takes longer than sending it.
    const bytes = Agent.service.Watch.responseSerialize(message);
    expect(bytes.length).toBeGreaterThan(2 ** 20);
    const { pod, id } = await attack((agent) => ({
      Watch: (call) => void agent.armed.then(() => void call.write(message)),
    }));
    await cutOff(pod, id, /the answer to Watch has \d+ bytes, 1048576 are allowed/);
    await untouched();
  });

  test('announces endless connections is cut off', async () => {
    let next = 0;
    const announce = () => {
      next += 1;
      return { id: String(next) };
    };
    const { pod, id } = await attack((agent) => ({
      Incoming: (call) => void agent.armed.then(() => flood(call, announce)),
    }));
    await cutOff(pod, id, /floods its node with connections/);
    await untouched();
  });

  test('opens the connections that it may, sends garbage on some and nothing on others, gets no image', async () => {
    const answers: string[] = [];
    const requests = [
      'GET /v2/../../../../etc/passwd HTTP/1.1\r\nhost: x\r\n\r\n',
      `GET /v2/${'a'.repeat(32)}/manifests/latest HTTP/1.1\r\nhost: x\r\n\r\n`,
      `GET /v2/x/blobs/sha256:${'0'.repeat(64)}%2f..%2f..%2fjournal.db HTTP/1.1\r\nhost: x\r\n\r\n`,
      `POST /v2/x/blobs/uploads/ HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n${'z'.repeat(60_000)}`,
      randomBytes(50_000).toString('latin1'),
      'GET /v2/ HTTP/1.1\r\n',
      '',
    ];
    let opened = 0;
    const { pod, id } = await attack(() => ({
      Incoming: (call) => {
        for (let n = 1; n <= 200; n += 1) call.write({ id: String(n) });
      },
      Tunnel: (call) => {
        const request = requests[opened % requests.length] ?? '';
        opened += 1;
        // Every ninth never says that it is open.
        if (opened % 9 === 0) return;
        call.write({ opened: {} });
        call.on('error', () => undefined);
        call.on('data', ({ data }) => {
          if (data) answers.push(data.toString('latin1'));
        });
        for (const part of request.match(/.{1,50000}/gs) ?? []) call.write({ data: Buffer.from(part, 'latin1') });
      },
    }));
    await until(() => (answers.length > 10 ? true : undefined), { everyMs: 50, signal });
    expect(opened).toBeGreaterThan(30);
    for (const answer of answers) expect(answer).toMatch(/^HTTP\/1\.1 (4\d\d)/);
    expect(answers.join('')).not.toContain('root:');
    expect(await node.ask('state', id)).toMatchObject({ ready: true });
    await node.ask('remove', id);
    expect((await why(pod)).reason).toBe('');
    await untouched();
  });

  test('speaks for the containers of another pod is not heard', async () => {
    const [other = ''] = [...honest.agent.guest.containers.keys()];
    const exited = RuntimeService.service.GetContainerEvents.responseSerialize({
      containerId: other,
      containersStatuses: [{ id: other, state: 'CONTAINER_EXITED', exitCode: 1, finishedAt: '2000' }],
    });
    const usage = {
      cpuUs: '9223372036854775808',
      memory: '18446744073709551615',
      cpuPressure: { some: { avg10: Number.NaN } },
    };
    const { id } = await attack((agent) => ({
      Watch: (call) =>
        void agent.armed.then(() => {
          call.write({ containerEvent: exited });
          call.write({
            sample: { monotonicUs: '18446744073709551615', pod: usage, containers: [{ id: other, usage }] },
          });
        }),
    }));
    const told = async () => (await node.ask<{ usage: object } | null>('stats', id)) ?? undefined;
    const { usage: shown } = await until(told, { everyMs: 50, signal });
    for (const [name, value] of Object.entries(shown)) {
      if (typeof value === 'number') expect(Number.isSafeInteger(value) && value >= 0, name).toBe(true);
    }
    await untouched();
    await node.ask('remove', id);
  });

  test.each([
    {
      what: 'phases and times out of range',
      reply: {
        clockNanos: '-9223372036854775808',
        uptimeMs: '-9223372036854775808',
        phases: { ready: '1', joined: '-5' },
      },
    },
    {
      what: 'a clock at the end of time',
      reply: { clockNanos: '9223372036854775807', uptimeMs: '9223372036854775807' },
    },
  ])('gives $what harms itself at most', async ({ reply }) => {
    const { pod, id } = await attack(() => ({
      Configure: (_call, done) => done(null, { machine: { imageDigest: 'x'.repeat(10_000), ...reply } }),
    }));
    const { text } = await why(pod);
    expect(text).not.toMatch(/NaN|null,"ready"/);
    await node.ask('remove', id);
    await untouched();
  });

  test.each([{ what: 'account of itself' }, { what: 'certificate request' }])(
    'gives a $what of megabytes never becomes a pod',
    async ({ what }) => {
      const name = 'n'.repeat(1000);
      const phases = Object.fromEntries(Array.from({ length: 5000 }, (_, n) => [`${name}${n}`, '1']));
      const lies: Lies =
        what === 'account of itself'
          ? () => ({ Configure: (_call, done) => done(null, { machine: { phases } }) })
          : (_agent, { Enrol }) => ({
              Enrol: (call, done) =>
                Enrol(call, (error, reply) => done(error, { ...reply, csr: Buffer.alloc(5_000_000) })),
            });
      await expect(attack(lies)).rejects.toThrow(/has \d+ bytes, 65536 are allowed/);
      await untouched();
    },
  );

  test.each([
    { what: 'climbs out of everything', containerId: '../../../../etc/passwd' },
    { what: 'has a megabyte', containerId: 'f'.repeat(900_000) },
  ])('gives a container an id that $what is refused', async ({ containerId }) => {
    const { id } = await attack((_agent, { Call }) => ({
      Call: (call, done) =>
        call.request.method.endsWith('/CreateContainer')
          ? done(null, { payload: RuntimeService.service.CreateContainer.responseSerialize({ containerId }) })
          : Call(call, done),
    }));
    await expect(node.ask('contain', id)).rejects.toThrow(/an id that is none/);
    expect(await node.ask('state', id)).toMatchObject({ ready: true, containers: [] });
    await node.ask('remove', id);
    await untouched();
  });

  test('lists a hundred thousand containers with all their labels is cut off', async () => {
    const labels = Object.fromEntries(Array.from({ length: 40 }, (_, n) => [`label-${n}`, 'x']));
    const containers = Array.from({ length: 5000 }, (_, n) => ({ id: String(n), labels }));
    const payload = RuntimeService.service.ListContainers.responseSerialize({ containers });
    expect(payload.length).toBeGreaterThan(2 ** 20);
    const { pod, id } = await attack((agent, { Call }) => ({
      Call: (call, done) =>
        call.request.method.endsWith('/ListContainers') ? done(null, { payload }) : Call(call, done),
      // It is asked again and again.
      Watch: (call) =>
        void agent.armed.then(() => {
          const timer = setInterval(() => call.write({ resync: {} }), 100).unref();
          call.once('cancelled', () => clearInterval(timer));
        }),
    }));
    await cutOff(pod, id, /the answer to ListContainers has \d+ bytes, 1048576 are allowed/);
    await untouched();
  });

  test.each([
    { what: 'comes in pieces too large', piece: { offset: '0', data: Buffer.alloc(2_000_000, 'x') } },
    { what: 'is beyond all numbers', piece: { offset: '9223372036854775807', data: Buffer.from('x\n') } },
  ])('has a log that $what is cut off', async ({ piece }) => {
    const { pod, id } = await attack(() => ({ ReadLog: (call) => void call.write(piece) }), true);
    await cutOff(pod, id, /(the answer to ReadLog has|the agent sent log bytes)/);
    await untouched();
  });

  test('says without end that a log has ended is cut off', async () => {
    const { pod, id } = await attack(
      () => ({ ReadLog: (call) => flood(call, () => ({ offset: '0', data: Buffer.alloc(0), ended: true })) }),
      true,
    );
    await cutOff(pod, id, /the agent sends a log that says nothing/);
    await untouched();
  });

  test('asks for certificates of other keys and names, again and again, gets its own name or nothing', async () => {
    const signed: string[] = [];
    const { id } = await attack((_agent, { Install, Renew }) => ({
      // The first is garbage, the next one for a key of its own choice.
      Renew: (call, done) => {
        if (signed.length === 0) {
          signed.push('asked');
          done(null, { csr: randomBytes(2000) });
        } else if (signed.length === 1) {
          signed.push('other key');
          done(null, { csr: certificateRequest(newKey()) });
        } else Renew(call, done);
      },
      Install: (call, done) => {
        signed.push(Buffer.from(call.request.chain[0] ?? []).toString('latin1'));
        if (signed.length > 3) done(null, {});
        else Install(call, done);
      },
    }));
    await until(() => (signed.length >= 3 ? true : undefined), { everyMs: 50, signal });
    for (const name of signed.slice(2)) expect(name).toContain(id);
    expect(signed.join()).not.toContain(honest.id);
    await untouched();
    await node.ask('remove', id);
  });

  test('shows the certificate of another machine after it was cut is not let in again', async () => {
    const { id, pod } = await attack(() => ({}));
    const liar = node.agent;
    if (!liar) throw new Error('no agent');
    liar.impersonate(honest.agent);
    const failed = async () => ((await node.ask<{ ready: boolean }>('state', id)).ready ? undefined : true);
    await until(failed, { everyMs: 50, signal });
    expect((await why(pod)).reason).toMatch(/certificate is for another machine/);
    await node.ask('remove', id);
    await untouched();
  });
});
