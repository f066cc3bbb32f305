/** The CPU profile of this process between two moments, summed up: which functions the time went to. */
import { Session } from 'node:inspector/promises';

export interface Hot {
  /** "function file:line". */
  readonly where: string;
  /** Part of all samples in which this function itself ran, 0 to 1. */
  readonly share: number;
}

/** Samples every 200 µs until the function it returns is called. */
export async function startProfile(): Promise<() => Promise<readonly Hot[]>> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.setSamplingInterval', { interval: 200 });
  await session.post('Profiler.start');
  return async () => {
    const { profile } = await session.post('Profiler.stop');
    session.disconnect();
    const byFunction = new Map<string, number>();
    let busy = 0;
    for (const { callFrame, hitCount = 0 } of profile.nodes) {
      const { functionName, url, lineNumber } = callFrame;
      if (functionName === '(idle)') continue;
      busy += hitCount;
      const file = url.replace(/^.*\/(node_modules|src|test|providers)\//, '$1/');
      const where = `${functionName || '(anonymous)'} ${file === '' ? '' : `${file}:${lineNumber + 1}`}`.trim();
      byFunction.set(where, (byFunction.get(where) ?? 0) + hitCount);
    }
    return [...byFunction]
      .map(([where, hits]) => ({ where, share: hits / Math.max(1, busy) }))
      .sort((a, b) => b.share - a.share)
      .slice(0, 15);
  };
}
