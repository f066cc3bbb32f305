/**
 * Figures as the rest of the daemon sees them. Nobody asks for them unless metrics are configured: whoever measures takes
 * `Meters` from its options and does nothing without. Labels have few values: never an id or the name of a pod.
 */
export type Labels = Readonly<Record<string, string>>;
/** One line of a figure that is read when somebody looks. */
export type Reading = readonly [labels: Labels, value: number];

export interface Meters {
  /** A count that grows; the function adds to it. */
  counter(name: string, help: string, labels: readonly string[]): (labels: Labels, by?: number) => void;
  /** How values are spread over `buckets`; the function adds a value. */
  histogram(
    name: string,
    help: string,
    labels: readonly string[],
    buckets: readonly number[],
  ): (labels: Labels, value: number) => void;
  /** Read at each look; what `read` throws leaves this figure out. */
  read(
    kind: 'gauge' | 'counter',
    name: string,
    help: string,
    labels: readonly string[],
    read: () => Iterable<Reading> | Promise<Iterable<Reading>>,
  ): void;
}

/** Seconds, for what takes from a millisecond (an answer from memory) to minutes (a cold boot on a busy cloud). */
export const SECONDS = [0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300] as const;
