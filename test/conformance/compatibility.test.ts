/**
 * docs/compatibility.md is true: its tables know every RPC and field of the proto file and nothing else, and the real
 * server, over machines in memory, treats fields as they say.
 */
import { existsSync, readFileSync } from 'node:fs';
import { type ServiceError, status } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Sample } from '../../src/gen/infralet/agent/v1/Sample.ts';
import type { ContainerConfig } from '../../src/gen/runtime/v1/ContainerConfig.ts';
import type { PodSandboxConfig } from '../../src/gen/runtime/v1/PodSandboxConfig.ts';
import { answersOf } from '../compatibility/answers.ts';
import { COVERAGE } from '../compatibility/critest.ts';
import type { Treatment } from '../compatibility/entry.ts';
import { compatibilityPage } from '../compatibility/page.ts';
import { type FieldKey, reachable, readCri, walk } from '../compatibility/proto.ts';
import { REFUSALS, type Subject } from '../compatibility/refusals.ts';
import { RPCS } from '../compatibility/rpcs.ts';
import { fullContainer, fullPod } from '../compatibility/samples.ts';
import { entryOf, LISTED_FIELDS, WINDOWS_MESSAGES } from '../compatibility/table.ts';
import { PAGE } from '../compatibility/write.ts';
import { criMethods } from '../support/cri-client.ts';
import { IMAGE } from '../support/world.ts';
import { WorldCri } from '../support/world-cri.ts';

const cri = readCri();
const ALL: readonly FieldKey[] = [...cri.messages].flatMap(([message, fields]) =>
  fields.map(({ name }): FieldKey => `${message}.${name}`),
);
const treatedAs = (...words: readonly Treatment[]): FieldKey[] =>
  ALL.filter((key) => words.some((word) => word === entryOf(key)?.treatment));

const IMAGES = ['registry.test/app:1', 'registry.test/with-user:1', 'registry.test/pause:1'] as const;

describe('the tables', () => {
  test('have every field of the CRI and no other', () => {
    expect(ALL.length).toBeGreaterThan(450);
    expect(ALL.filter((key) => entryOf(key) === undefined)).toEqual([]);
    const known = new Set(ALL);
    expect(LISTED_FIELDS.filter((key) => !known.has(key))).toEqual([]);
    expect(WINDOWS_MESSAGES.filter((name) => !cri.messages.has(name))).toEqual([]);
  });

  test('have every RPC of the CRI and no other', () => {
    expect(Object.keys(RPCS).sort()).toEqual(cri.rpcs.map(({ name }) => name).sort());
  });

  test('speak of requests and of answers in the words for them', () => {
    const asked = new Set<FieldKey>();
    const answered = new Set<FieldKey>();
    for (const { request, response } of cri.rpcs) {
      reachable(cri, request, asked);
      reachable(cri, response, answered);
    }
    const forAnswers = treatedAs('filled', 'measured', 'empty');
    expect(forAnswers.filter((key) => !answered.has(key))).toEqual([]);
    const forRequests = treatedAs('done', 'guest', 'shown', 'limited', 'refused', 'unused');
    expect(forRequests.filter((key) => !asked.has(key))).toEqual([]);
  });

  test('name tests that exist', () => {
    const files = COVERAGE.flatMap(({ tests }) => tests);
    expect(files.filter((file) => !existsSync(new URL(`../../${file}`, import.meta.url)))).toEqual([]);
  });

  test('are what the page says', () => {
    expect(readFileSync(PAGE, 'utf8'), 'npm run compatibility writes it anew').toBe(compatibilityPage(cri));
  });
});

describe('the server', () => {
  let node: WorldCri;
  let subject: Subject;
  /** What containerd in the machine was asked, by RPC. */
  const inGuest = new Map<string, object>();
  const pod: PodSandboxConfig = fullPod('full', '/tmp');
  const container: ContainerConfig = fullContainer('app', IMAGE, import.meta.dirname);
  beforeAll(async () => {
    node = await WorldCri.start({ stats: { interval: '500ms' } });
    const { client, world } = node;
    world.guests.onCall = (method, request) => inGuest.set(method, request);
    const { podSandboxId } = await client.RunPodSandbox({ config: pod, runtimeHandler: 'infralet' });
    const { containerId } = await client.CreateContainer({ podSandboxId, config: container });
    await client.StartContainer({ containerId });
    const guest = world.guests.guests.get(podSandboxId);
    if (guest) guest.lie = withLimits;
    for (const image of IMAGES) await client.PullImage({ image: { image } });
    subject = { client, podSandboxId, containerId, pod: fullPod('other', '/tmp'), container };
  });
  afterAll(async () => {
    await node[Symbol.asyncDispose]();
  });

  test('has the RPCs that are said to be there, and answers UNIMPLEMENTED to the others', async () => {
    const there: string[] = [];
    for (const { name } of criMethods()) {
      const call = node.client[name] as (request: object, options: object) => Promise<unknown>;
      // Empty requests are refused by what is there, before they do anything.
      const answer = await outcome(call({}, { timeoutMs: 500 }));
      if (answer.code !== 'UNIMPLEMENTED') there.push(name);
    }
    const said = Object.entries(RPCS).filter(([, entry]) => entry.there);
    expect(there.sort()).toEqual(said.map(([name]) => name).sort());
  });

  test('passes on to the machine what is said to be passed on', () => {
    const arrived = new Set<FieldKey>();
    const compare = (message: string, sent: unknown, got: unknown): void =>
      walk(cri, message, [sent, got], (key, [from, to]) => {
        if (sameFields(from, to)) arrived.add(key);
      });
    const made = inGuest.get('CreateContainer') as { readonly config: object };
    compare('PodSandboxConfig', pod, (inGuest.get('RunPodSandbox') as { readonly config: object }).config);
    compare('ContainerConfig', container, made.config);
    const requests = new Set([...reachable(cri, 'PodSandboxConfig'), ...reachable(cri, 'ContainerConfig')]);
    const promised = treatedAs('guest').filter((key) => requests.has(key));
    expect(promised.length).toBeGreaterThan(30);
    expect(promised.filter((key) => !arrived.has(key))).toEqual([]);
  });

  test('shows what is said to be shown', async () => {
    const { client, podSandboxId, containerId } = subject;
    const shown = new Set<FieldKey>();
    const compare = (message: string, sent: unknown, got: unknown): void =>
      walk(cri, message, [sent, got], (key, [from, to]) => {
        if (sameFields(from, to)) shown.add(key);
      });
    const sandbox = await client.PodSandboxStatus({ podSandboxId });
    const one = await client.ContainerStatus({ containerId });
    compare('PodSandboxConfig', pod, sandbox.status);
    compare('ContainerConfig', container, one.status);
    const requests = new Set([...reachable(cri, 'PodSandboxConfig'), ...reachable(cri, 'ContainerConfig')]);
    const promised = treatedAs('shown').filter((key) => requests.has(key));
    expect(promised.length).toBeGreaterThan(8);
    expect(promised.filter((key) => !shown.has(key))).toEqual([]);
  });

  test('refuses what is said to be refused, and the error names the field', async () => {
    const probed = new Set(REFUSALS.flatMap(({ fields }) => fields));
    const promised = treatedAs('refused', 'limited');
    expect([...probed].filter((key) => !promised.includes(key))).toEqual([]);
    expect(promised.filter((key) => !probed.has(key))).toEqual([]);
    const absent = cri.rpcs.filter(({ name }) => RPCS[name]?.there !== true).map(({ request }) => `${request}.`);
    for (const { fields, names, ask } of REFUSALS) {
      if (fields.every((key) => absent.some((request) => key.startsWith(request)))) continue;
      const { code, details } = await outcome(ask(subject));
      expect(['INVALID_ARGUMENT', 'FAILED_PRECONDITION'], `${fields.join()}: ${details}`).toContain(code);
      expect(details, fields.join()).toMatch(names);
    }
  });

  test('fills in what is said to be filled in, and nothing of what is said to be empty', async () => {
    const answers = await answersOf(subject, IMAGES[0]);
    const seen = new Set<FieldKey>();
    for (const [message, answer] of answers) walk(cri, message, [answer], (key) => seen.add(key));
    const here = new Set(answers.flatMap(([message]) => [...reachable(cri, message)]));
    expect(treatedAs('filled', 'measured').filter((key) => here.has(key) && !seen.has(key))).toEqual([]);
    expect(treatedAs('empty', 'windows').filter((key) => seen.has(key))).toEqual([]);
  });
});

/** Figures of containers that have a limit of memory. */
function withLimits(sample: Sample): Sample {
  const containers = (sample.containers ?? []).map((each) => ({
    ...each,
    usage: { ...each.usage, memoryLimit: 2 ** 28 },
  }));
  return { ...sample, containers };
}

async function outcome(call: Promise<unknown>): Promise<{ readonly code: string; readonly details: string }> {
  try {
    await call;
    return { code: 'OK', details: '' };
  } catch (error) {
    const { code, details } = error as ServiceError;
    return { code: status[code], details };
  }
}

/** Whether all that was sent is there; what was left out may have its default. */
function sameFields(sent: unknown, got: unknown): boolean {
  if (Buffer.isBuffer(sent)) return Buffer.isBuffer(got) && sent.equals(got);
  if (Array.isArray(sent)) {
    return Array.isArray(got) && sent.length === got.length && sent.every((each, n) => sameFields(each, got[n]));
  }
  if (typeof sent !== 'object' || sent === null) return sent === got;
  if (typeof got !== 'object' || got === null) return false;
  const there = got as Readonly<Record<string, unknown>>;
  return Object.entries(sent).every(([name, value]) => sameFields(value, there[name]));
}
