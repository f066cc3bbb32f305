/** Samples as the daemon reads them off the wire: made by the real encoder and decoder. */
import type { Sample, Sample__Output } from '../../src/gen/infralet/agent/v1/Sample.ts';
import type { Usage } from '../../src/gen/infralet/agent/v1/Usage.ts';
import { loadAgent } from '../../src/rpc/load.ts';

const { TakeSample } = loadAgent().Agent.service;

export function received(sample: Sample): Sample__Output {
  return TakeSample.responseDeserialize(TakeSample.responseSerialize(sample));
}

/** What a small program uses after `seconds`: half a processor, 30 MiB of memory. */
export function someUsage(seconds: number, change: Usage = {}): Usage {
  const us = Math.round(seconds * 500_000);
  const stall = { totalUs: us / 10, avg10: 1.5, avg60: 0.75, avg300: 0.1 };
  return {
    cpuUs: us,
    cpuUserUs: us / 2,
    cpuSystemUs: us / 2,
    memory: 30 * 2 ** 20,
    memoryPeak: 40 * 2 ** 20,
    anon: 10 * 2 ** 20,
    file: 20 * 2 ** 20,
    kernel: 2 ** 20,
    mappedFile: 2 ** 20,
    activeAnon: 9 * 2 ** 20,
    inactiveAnon: 2 ** 20,
    activeFile: 12 * 2 ** 20,
    inactiveFile: 8 * 2 ** 20,
    pageFaults: 12_345,
    majorPageFaults: 12,
    pids: 3,
    readBytes: 4096,
    writeBytes: 8192,
    reads: 1,
    writes: 2,
    cpuPressure: { some: stall, full: stall },
    memoryPressure: { some: stall, full: stall },
    ioPressure: { some: stall, full: stall },
    ...change,
  };
}
