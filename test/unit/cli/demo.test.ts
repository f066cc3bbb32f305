import { describe, expect, it } from 'vitest';
import { parseCriLog } from '../../../src/cli/demo.ts';
import { formatTimeline, infoOfStatus } from '../../../src/cli/sandbox-info.ts';

describe('parseCriLog', () => {
  it('joins parts, keeps empty lines, drops a line that is not finished', () => {
    const log = [
      '2026-01-01T00:00:00.1Z stdout F hello',
      '2026-01-01T00:00:00.2Z stderr P one ',
      '2026-01-01T00:00:00.3Z stderr F line',
      '2026-01-01T00:00:00.4Z stdout F ',
      '2026-01-01T00:00:00.5Z stdout P unfini',
    ].join('\n');
    expect(parseCriLog(log)).toEqual(['hello', 'one line', '']);
  });
});

describe('sandbox info', () => {
  it('reads what the daemon tells, and takes what is missing or strange as empty', () => {
    const info = infoOfStatus({
      info: JSON.stringify({ state: 'ready', timeline: 'x', machine: { cpuMillis: 1000 }, new: 1 }),
    });
    expect(info).toMatchObject({
      state: 'ready',
      timeline: [],
      instanceId: '',
      machine: { cpuMillis: 1000, memoryBytes: 0 },
    });
    expect(infoOfStatus({}).state).toBe('unknown');
    expect(infoOfStatus({ info: '{' }).state).toBe('unknown');
  });

  it('shows when each phase was reached and how long it took', () => {
    const text = formatTimeline([
      { phase: 'launch', ms: 150.4 },
      { phase: 'kernel', ms: 2850 },
    ]);
    expect(text).toBe('launch   150 ms  (+ 150)\nkernel  2850 ms  (+2700)');
  });
});
