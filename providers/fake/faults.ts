/** Faults on demand: which call fails next, and how. */
import type { FaultKind } from '../../src/cloud/contract.ts';

/** An error of the fake cloud; knows its own class. */
export class FakeError extends Error {
  override readonly name = 'FakeError';
  readonly kind: FaultKind;

  constructor(kind: FaultKind, message: string) {
    super(message);
    this.kind = kind;
  }
}

export interface PlannedFault {
  readonly call: 'launch' | 'describe' | 'terminate' | 'console' | 'prepare' | 'resize' | 'power';
  readonly kind: FaultKind;
  /** How many calls fail this way. @default 1 */
  readonly times?: number;
}

/** Faults in the order in which they were planned, per call. */
export class FaultPlan {
  #calls: readonly PlannedFault[];

  constructor(calls: readonly PlannedFault[] = []) {
    this.#calls = calls;
  }

  get calls(): readonly PlannedFault[] {
    return this.#calls;
  }

  add(fault: PlannedFault): void {
    this.#calls = [...this.#calls, fault];
  }

  /** Throws the next fault planned for this call, if any. */
  raise(call: PlannedFault['call']): void {
    const index = this.#calls.findIndex((fault) => fault.call === call && (fault.times ?? 1) > 0);
    const fault = this.#calls[index];
    if (!fault) return;
    this.#calls = this.#calls.with(index, { ...fault, times: (fault.times ?? 1) - 1 });
    throw new FakeError(fault.kind, `the fake cloud was told to fail ${call}: ${fault.kind}`);
  }
}
