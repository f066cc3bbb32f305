/** The encoder for figures writes what the general one reads, and reads the same from both. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeContainerStats, encodePodMetrics, encodePodStats } from '../../src/cri/encode.ts';
import { loadCri } from '../../src/rpc/load.ts';

const { service } = loadCri().RuntimeService;

const number = fc.oneof(
  fc.constant(0),
  fc.nat(),
  fc.maxSafeNat(),
  fc.constantFrom(127, 128, 2 ** 31, 2 ** 32, 2 ** 52),
);
const long = fc.oneof(number, fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }).map(String));
const value = fc.option(fc.record({ value: long }));
const timestamp = fc.bigInt({ min: 0n, max: 2n ** 62n }).map(String);
const percent = fc.double({ min: 0, max: 100, noNaN: true });
const stall = fc.option(fc.record({ Total: long, Avg10: percent, Avg60: percent, Avg300: percent }));
const psi = fc.option(fc.record({ Some: stall, Full: stall }));
const texts = fc.dictionary(fc.string({ minLength: 1, unit: 'grapheme' }), fc.string({ unit: 'grapheme' }));
const text = fc.string({ unit: 'grapheme' });
const cpu = fc.option(fc.record({ timestamp, usageCoreNanoSeconds: value, usageNanoCores: value, psi }));
const memory = fc.option(
  fc.record({
    timestamp,
    workingSetBytes: value,
    availableBytes: value,
    usageBytes: value,
    rssBytes: value,
    pageFaults: value,
    majorPageFaults: value,
    psi,
  }),
);
const io = fc.option(fc.record({ timestamp, psi }));
const containerStats = fc.record({
  attributes: fc.option(
    fc.record({ id: text, metadata: fc.record({ name: text, attempt: fc.nat() }), labels: texts, annotations: texts }),
  ),
  cpu,
  memory,
  writableLayer: fc.option(
    fc.record({ timestamp, fsId: fc.option(fc.record({ mountpoint: text })), usedBytes: value, inodesUsed: value }),
  ),
  swap: fc.option(fc.record({ timestamp, swapAvailableBytes: value, swapUsageBytes: value })),
  io,
});
const networkInterface = fc.record({ name: text, rxBytes: value, rxErrors: value, txBytes: value, txErrors: value });
const podStats = fc.record({
  attributes: fc.record({
    id: text,
    metadata: fc.record({ name: text, uid: text, namespace: text, attempt: fc.nat() }),
    labels: texts,
    annotations: texts,
  }),
  linux: fc.option(
    fc.record({
      cpu,
      memory,
      network: fc.option(
        fc.record({ timestamp, defaultInterface: fc.option(networkInterface), interfaces: fc.array(networkInterface) }),
      ),
      process: fc.option(fc.record({ timestamp, processCount: value })),
      containers: fc.array(containerStats, { maxLength: 3 }),
      io,
    }),
  ),
});
const metric = fc.record({
  name: text,
  timestamp,
  metricType: fc.constantFrom('COUNTER' as const, 'GAUGE' as const),
  labelValues: fc.array(text),
  value,
});
const podMetrics = fc.record({
  podSandboxId: text,
  metrics: fc.array(metric, { maxLength: 5 }),
  containerMetrics: fc.array(fc.record({ containerId: text, metrics: fc.array(metric, { maxLength: 5 }) }), {
    maxLength: 3,
  }),
});

test('container stats', () => {
  const { responseSerialize, responseDeserialize } = service.ListContainerStats;
  fc.assert(
    fc.property(fc.array(containerStats, { maxLength: 4 }), (stats) => {
      const ours = Buffer.concat(stats.map(encodeContainerStats));
      expect(responseDeserialize(ours)).toEqual(responseDeserialize(responseSerialize({ stats })));
      // A second time some of it comes from what was kept.
      expect(Buffer.concat(stats.map(encodeContainerStats))).toEqual(ours);
    }),
  );
});

test('pod stats', () => {
  const { responseSerialize, responseDeserialize } = service.ListPodSandboxStats;
  fc.assert(
    fc.property(podStats, (stats) => {
      expect(responseDeserialize(encodePodStats(stats))).toEqual(
        responseDeserialize(responseSerialize({ stats: [stats] })),
      );
    }),
  );
});

test('metrics, labels that are empty too', () => {
  const { responseSerialize, responseDeserialize } = service.ListPodSandboxMetrics;
  fc.assert(
    fc.property(podMetrics, (pod) => {
      expect(responseDeserialize(encodePodMetrics(pod))).toEqual(
        responseDeserialize(responseSerialize({ podMetrics: [pod] })),
      );
    }),
  );
});

test('a message larger than the buffer', () => {
  const item = { attributes: { id: 'x', annotations: { big: 'ü'.repeat(200_000) } }, cpu: { timestamp: '1' } };
  const { stats } = service.ListContainerStats.responseDeserialize(encodeContainerStats(item));
  expect(stats[0]).toMatchObject(item);
});
