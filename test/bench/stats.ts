/** Figures from samples. */

/** The smallest sample that at least `share` (0 to 1) of all samples do not exceed; NaN without samples. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export const median = (samples: readonly number[]): number => percentile(samples, 0.5);

export interface Summary {
  readonly count: number;
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

export function summary(samples: readonly number[]): Summary {
  return {
    count: samples.length,
    p50: percentile(samples, 0.5),
    p95: percentile(samples, 0.95),
    p99: percentile(samples, 0.99),
    max: percentile(samples, 1),
  };
}

/** Samples by name, in the order in which the names first came. */
export class Samples {
  readonly #byName = new Map<string, number[]>();

  add(name: string, value: number): void {
    const list = this.#byName.get(name);
    if (list) list.push(value);
    else this.#byName.set(name, [value]);
  }

  get names(): readonly string[] {
    return [...this.#byName.keys()];
  }

  of(name: string): readonly number[] {
    return this.#byName.get(name) ?? [];
  }

  summary(name: string): Summary {
    return summary(this.of(name));
  }

  /** Awaits the work and notes how long it took, in milliseconds; what fails is not noted. */
  async time<T>(name: string, work: () => Promise<T>): Promise<T> {
    const started = performance.now();
    const result = await work();
    this.add(name, performance.now() - started);
    return result;
  }

  summaries(): Readonly<Record<string, Summary>> {
    return Object.fromEntries(this.names.map((name) => [name, this.summary(name)]));
  }
}
