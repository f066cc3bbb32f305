/** Traces of pods, as a collector receives them by OTLP over HTTP. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { until } from '../../../src/base/time.ts';
import type { Logger } from '../../../src/telemetry/log.ts';
import { startTracing } from '../../../src/telemetry/otlp.ts';
import type { Tracer } from '../../../src/telemetry/trace.ts';
import { podRequest } from '../../support/cri-requests.ts';
import { type CollectedSpan, type Collector, startCollector } from '../../support/otlp-collector.ts';
import { WorldCri } from '../../support/world-cri.ts';

const signal = AbortSignal.timeout(30_000);
const settings = { isolation: { templateSharing: 'off' } };
const facts = { cluster: 'c1', node: 'n1', version: '1.2.3', timeout: 5000, headers: { 'x-key': 'k' } };

let collector: Collector;
let tracer: (Tracer & AsyncDisposable) | undefined;
beforeEach(async () => {
  collector = await startCollector();
});
afterEach(async () => {
  await tracer?.[Symbol.asyncDispose]();
  tracer = undefined;
  await collector[Symbol.asyncDispose]();
});

/** A logger that keeps its lines. */
function keep(lines: Readonly<Record<string, unknown>>[], bound: Readonly<Record<string, unknown>> = {}): Logger {
  const write = (message: string, fields = {}): void => void lines.push({ ...bound, ...fields, message });
  const levels = { trace: write, debug: write, info: write, warn: write, error: write };
  return { ...levels, child: (fields) => keep(lines, { ...bound, ...fields }) };
}

const received = async (...names: readonly string[]): Promise<readonly CollectedSpan[]> =>
  await until(
    async () => {
      const spans = collector.spans();
      return names.every((name) => spans.some((span) => span.name === name)) ? spans : undefined;
    },
    { everyMs: 50, signal },
  );
const one = (spans: readonly CollectedSpan[], name: string): CollectedSpan => {
  const [found, ...more] = spans.filter((span) => span.name === name);
  if (!found || more.length > 0) throw new Error(`${more.length + (found ? 1 : 0)} spans are called ${name}`);
  return found;
};

test("a pod is one trace that goes on from the kubelet's; later calls join it, and its log lines name it", async () => {
  tracer = startTracing({ ...facts, endpoint: collector.endpoint, sampleRatio: 0 });
  const lines: Readonly<Record<string, unknown>>[] = [];
  await using node = await WorldCri.start(settings, { tracer, log: keep(lines) });
  const traceId = '0af7651916cd43dd8448eb211c80319c';
  const kubelet = 'b7ad6b7169203331';
  const headers = { traceparent: `00-${traceId}-${kubelet}-01` };
  const { podSandboxId } = await node.client.RunPodSandbox({ config: podRequest() }, { headers });
  await node.client.StopPodSandbox({ podSandboxId });
  const spans = await received('RunPodSandbox', 'ready', 'StopPodSandbox', 'machine.terminate');
  const run = one(spans, 'RunPodSandbox');
  expect([run.traceId, run.parentSpanId, run.kind]).toEqual([traceId, kubelet, 2]);
  const steps = [
    'network.add',
    'machine.launch',
    'network.join',
    'agent.connect',
    'guest.run',
    'ready',
    'machine.terminate',
  ];
  for (const name of steps) {
    const step = one(spans, name);
    expect([name, step.traceId, step.parentSpanId]).toEqual([name, traceId, run.spanId]);
    expect(BigInt(step.endTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(step.startTimeUnixNano));
    expect(step.attributes.find(({ key }) => key === 'infralet.sandbox.id')?.value.stringValue).toBe(podSandboxId);
  }
  const launch = one(spans, 'machine.launch');
  expect(launch.attributes.find(({ key }) => key === 'infralet.machine.start')?.value.stringValue).toBe('boot');
  // Without a context of its own the call belongs to the sandbox that it is about.
  expect(one(spans, 'StopPodSandbox')).toMatchObject({ traceId, parentSpanId: run.spanId });
  expect(new Set(spans.map((span) => span.traceId))).toEqual(new Set([traceId]));
  expect(collector.resource()).toMatchObject({ 'service.name': 'infralet', 'k8s.node.name': 'n1' });
  expect(collector.headers()['x-key']).toBe('k');
  const ofSandbox = lines.filter(({ sandboxId }) => sandboxId === podSandboxId);
  expect(ofSandbox.length).toBeGreaterThan(0);
  expect(ofSandbox.every((line) => line['traceId'] === traceId)).toBe(true);
  expect(await node.runtime.why(podSandboxId, signal)).toMatchObject({ traceId });
});

test('another trace that has to do with the pod is linked; lists are traced only when their caller does', async () => {
  tracer = startTracing({ ...facts, endpoint: collector.endpoint, sampleRatio: 1 });
  await using node = await WorldCri.start(settings, { tracer });
  const podSandboxId = await node.pod('web');
  await node.client.ListPodSandbox({});
  const other = '11111111111111111111111111111111';
  const headers = { traceparent: `00-${other}-2222222222222222-01` };
  await node.client.PodSandboxStatus({ podSandboxId }, { headers });
  await node.client.Version({}, { headers: { traceparent: 'nonsense' } });
  const spans = await received('RunPodSandbox', 'ready', 'PodSandboxStatus');
  const run = one(spans, 'RunPodSandbox');
  expect(run.parentSpanId ?? '').toBe('');
  const status = one(spans, 'PodSandboxStatus');
  expect(status).toMatchObject({ traceId: other, parentSpanId: '2222222222222222' });
  expect(status.links).toMatchObject([{ traceId: run.traceId, spanId: run.spanId }]);
  await node.client.RemovePodSandbox({ podSandboxId });
  const all = await received('RemovePodSandbox');
  expect(all.map(({ name }) => name)).not.toContain('ListPodSandbox');
});

test('a failed step says why; a caller that does not sample, and a share of none, leave nothing behind', async () => {
  tracer = startTracing({ ...facts, endpoint: collector.endpoint, sampleRatio: 0 });
  await using node = await WorldCri.start(settings, { tracer });
  const headers = (flags: string) => ({ traceparent: `00-33333333333333333333333333333333-4444444444444444-${flags}` });
  const pod = (name: string) => podRequest({ metadata: { name, uid: name, namespace: 'default', attempt: 0 } });
  await node.client.RunPodSandbox({ config: pod('a') });
  await node.client.RunPodSandbox({ config: pod('b') }, { headers: headers('00') });
  Object.assign(node.world.network, {
    join: async (): Promise<never> => {
      throw new Error('the bridge is full');
    },
  });
  await expect(node.client.RunPodSandbox({ config: pod('c') }, { headers: headers('01') })).rejects.toThrow('full');
  const spans = await received('RunPodSandbox', 'network.join', 'machine.terminate');
  expect(one(spans, 'network.join').status).toMatchObject({ code: 2, message: 'the bridge is full' });
  expect(one(spans, 'RunPodSandbox').status.message).toContain('the bridge is full');
});
