/**
 * From what a machine says of itself to figures that may be shown. The guest is not trusted: no number is larger than
 * the machine can make it, none is negative or unsafe, texts are names. Pure.
 */
import type { InterfaceSample__Output } from '../gen/infralet/agent/v1/InterfaceSample.ts';
import type { LayerSample__Output } from '../gen/infralet/agent/v1/LayerSample.ts';
import type { Pressure__Output } from '../gen/infralet/agent/v1/Pressure.ts';
import type { Stall__Output } from '../gen/infralet/agent/v1/Stall.ts';
import type { Usage__Output } from '../gen/infralet/agent/v1/Usage.ts';
import type { GroupUsage, InterfaceUsage, LayerUsage, PressureUsage, RateBase, StallUsage } from './service.ts';

/** What the machine has, which nothing in it can exceed. */
export interface MachineBounds {
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly diskBytes: number;
}

/** Linux has no more process ids. */
const MAX_PIDS = 4_194_304;
/** An inode of a file system takes at least this many bytes of it. */
const BYTES_PER_INODE = 128;
/** More interfaces than a pod has. */
const MAX_INTERFACES = 32;
/** As the kernel allows: 15 bytes, no slash, no space. */
const INTERFACE_NAME = /^[^\s/\p{C}]{1,15}$/u;
/** Rates of a shorter time are noise. */
const RATE_US = 1_000_000;

/** A natural number, at most `limit`; 0 for anything else. */
export function bounded(text: string | undefined, limit = Number.MAX_SAFE_INTEGER): number {
  const value = Number(text);
  return value >= 0 ? Math.min(Math.floor(value), limit) : 0;
}

export function groupUsage(given: Usage__Output, machine: MachineBounds, swapTotal: number): GroupUsage {
  const memory = (text: string): number => bounded(text, machine.memoryBytes);
  return {
    cpuUs: bounded(given.cpuUs),
    cpuUserUs: bounded(given.cpuUserUs),
    cpuSystemUs: bounded(given.cpuSystemUs),
    cpuPeriods: bounded(given.cpuPeriods),
    cpuThrottledPeriods: bounded(given.cpuThrottledPeriods),
    cpuThrottledUs: bounded(given.cpuThrottledUs),
    memory: memory(given.memory),
    memoryLimit: given.memoryLimit === undefined ? undefined : bounded(given.memoryLimit),
    memoryPeak: memory(given.memoryPeak),
    anon: memory(given.anon),
    file: memory(given.file),
    kernel: memory(given.kernel),
    mappedFile: memory(given.mappedFile),
    activeAnon: memory(given.activeAnon),
    inactiveAnon: memory(given.inactiveAnon),
    activeFile: memory(given.activeFile),
    inactiveFile: memory(given.inactiveFile),
    pageFaults: bounded(given.pageFaults),
    majorPageFaults: bounded(given.majorPageFaults),
    swap: bounded(given.swap, swapTotal),
    swapLimit: bounded(given.swapLimit ?? String(swapTotal), swapTotal),
    limitHits: bounded(given.limitHits),
    oomKills: bounded(given.oomKills),
    pids: bounded(given.pids, MAX_PIDS),
    pidsLimit: given.pidsLimit === undefined ? undefined : bounded(given.pidsLimit, MAX_PIDS),
    readBytes: bounded(given.readBytes),
    writeBytes: bounded(given.writeBytes),
    reads: bounded(given.reads),
    writes: bounded(given.writes),
    cpuPressure: pressure(given.cpuPressure),
    memoryPressure: pressure(given.memoryPressure),
    ioPressure: pressure(given.ioPressure),
  };
}

function pressure(given: Pressure__Output | null): PressureUsage | undefined {
  return given ? { some: stall(given.some), full: stall(given.full) } : undefined;
}

function stall(given: Stall__Output | null): StallUsage {
  return {
    totalUs: bounded(given?.totalUs),
    avg10: percent(given?.avg10),
    avg60: percent(given?.avg60),
    avg300: percent(given?.avg300),
  };
}

/** Doubles of a message may be anything, "NaN" and "Infinity" as texts too. */
function percent(value: number | string | undefined): number {
  const number = Number(value);
  return number >= 0 ? Math.min(number, 100) : 0;
}

/** @param now milliseconds since the epoch. */
export function layerUsage(given: LayerSample__Output, machine: MachineBounds, now: number): LayerUsage {
  return {
    bytes: bounded(given.bytes, machine.diskBytes),
    inodes: bounded(given.inodes, Math.floor(machine.diskBytes / BYTES_PER_INODE)),
    at: now - bounded(given.ageMs, now),
  };
}

export function interfaceUsages(given: readonly InterfaceSample__Output[]): readonly InterfaceUsage[] {
  return given
    .slice(0, MAX_INTERFACES)
    .filter(({ name }) => INTERFACE_NAME.test(name))
    .map((each) => ({
      name: each.name,
      rxBytes: bounded(each.rxBytes),
      rxPackets: bounded(each.rxPackets),
      rxErrors: bounded(each.rxErrors),
      rxDropped: bounded(each.rxDropped),
      txBytes: bounded(each.txBytes),
      txPackets: bounded(each.txPackets),
      txErrors: bounded(each.txErrors),
      txDropped: bounded(each.txDropped),
    }));
}

interface Rate {
  readonly base: RateBase;
  readonly nanoCores: number | undefined;
}

/** The rate since the earlier sample; the earlier rate goes on until enough time has passed for another one. */
export function rateOf(before: Rate | undefined, now: RateBase, { cpuMillis }: MachineBounds): Rate {
  if (!before || now.monotonicUs < before.base.monotonicUs || now.cpuUs < before.base.cpuUs) {
    return { base: now, nanoCores: undefined };
  }
  const elapsedUs = now.monotonicUs - before.base.monotonicUs;
  if (elapsedUs < RATE_US) return before;
  const nanoCores = Math.round(((now.cpuUs - before.base.cpuUs) / elapsedUs) * 1e9);
  return { base: now, nanoCores: Math.min(nanoCores, Math.ceil(cpuMillis / 1000) * 1e9) };
}
