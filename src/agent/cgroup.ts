/** What a cgroup v2 directory says of the processes in it and below. What a kernel or a group lacks is left out or 0. */
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import type { Pressure } from '../gen/infralet/agent/v1/Pressure.ts';
import type { Stall } from '../gen/infralet/agent/v1/Stall.ts';
import type { Usage } from '../gen/infralet/agent/v1/Usage.ts';

/** More than any of these files has; io.stat grows with the number of disks. */
const buffer = Buffer.allocUnsafe(64 * 1024);

/** A small file of the kernel; '' when there is none (any more). One read, since each costs an emulated machine. */
export function readSmall(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    return '';
  }
  try {
    return buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0));
  } catch {
    return '';
  } finally {
    closeSync(fd);
  }
}

export function readUsage(group: string): Usage {
  const read = (file: string): string => readSmall(join(group, file));
  const cpu = keyed(read('cpu.stat'));
  const memory = keyed(read('memory.stat'));
  const events = keyed(read('memory.events'));
  const io = ioTotals(read('io.stat'));
  return {
    cpuUs: cpu('usage_usec'),
    cpuUserUs: cpu('user_usec'),
    cpuSystemUs: cpu('system_usec'),
    cpuPeriods: cpu('nr_periods'),
    cpuThrottledPeriods: cpu('nr_throttled'),
    cpuThrottledUs: cpu('throttled_usec'),
    memory: number(read('memory.current')),
    ...limited('memoryLimit', read('memory.max')),
    memoryPeak: number(read('memory.peak')),
    anon: memory('anon'),
    file: memory('file'),
    kernel: memory('kernel'),
    mappedFile: memory('file_mapped'),
    activeAnon: memory('active_anon'),
    inactiveAnon: memory('inactive_anon'),
    activeFile: memory('active_file'),
    inactiveFile: memory('inactive_file'),
    pageFaults: memory('pgfault'),
    majorPageFaults: memory('pgmajfault'),
    swap: number(read('memory.swap.current')),
    ...limited('swapLimit', read('memory.swap.max')),
    limitHits: events('max'),
    oomKills: events('oom_kill'),
    pids: number(read('pids.current')),
    ...limited('pidsLimit', read('pids.max')),
    readBytes: io.rbytes,
    writeBytes: io.wbytes,
    reads: io.rios,
    writes: io.wios,
    cpuPressure: pressure(read('cpu.pressure')),
    memoryPressure: pressure(read('memory.pressure')),
    ioPressure: pressure(read('io.pressure')),
  };
}

/** "name value" lines; 0 for a name that is not there. */
function keyed(text: string): (name: string) => number {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const space = line.indexOf(' ');
    if (space > 0) values.set(line.slice(0, space), line.slice(space + 1));
  }
  return (name) => number(values.get(name) ?? '');
}

function number(text: string): number {
  const value = Number.parseInt(text, 10);
  return Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

/** A limit's file says "max" where there is none; the root of a tree has no such file. */
function limited<Name extends string>(name: Name, text: string): { [N in Name]?: number } {
  return /^\d/.test(text) ? ({ [name]: number(text) } as { [N in Name]?: number }) : {};
}

/** Lines such as "253:0 rbytes=4096 wbytes=0 rios=1 wios=0 …", one per disk. */
function ioTotals(text: string): { rbytes: number; wbytes: number; rios: number; wios: number } {
  const totals = { rbytes: 0, wbytes: 0, rios: 0, wios: 0 };
  for (const [, name, value] of text.matchAll(/\b(rbytes|wbytes|rios|wios)=(\d+)/g)) {
    totals[name as keyof typeof totals] += number(value ?? '');
  }
  return totals;
}

/** Null where the kernel keeps no account (psi=0). */
function pressure(text: string): Pressure | null {
  const some = stall(/^some (.*)$/m.exec(text)?.[1]);
  const full = stall(/^full (.*)$/m.exec(text)?.[1]);
  return some || full ? { some, full } : null;
}

/** "avg10=0.00 avg60=0.00 avg300=0.00 total=0" */
function stall(text: string | undefined): Stall | null {
  if (text === undefined) return null;
  const values = new Map([...text.matchAll(/(\w+)=([\d.]+)/g)].map(([, name = '', value = '']) => [name, value]));
  const percent = (name: string): number => Number.parseFloat(values.get(name) ?? '') || 0;
  return {
    totalUs: number(values.get('total') ?? ''),
    avg10: percent('avg10'),
    avg60: percent('avg60'),
    avg300: percent('avg300'),
  };
}
