/** What an outside makes of a call, and how many calls it does so to. */
import { FakeError } from '../../providers/fake/faults.ts';
import { type ErrorCode, InfraletError } from '../../src/base/errors.ts';
import type { LaunchRequest } from '../../src/cloud/contract.ts';
import type { Meet } from '../support/kill-switch.ts';

export const ANSWERS = {
  answers: 'it answers',
  fails: 'it fails without an effect',
  lost: 'it has its effect, and the answer is lost',
  throttles: 'it says "too often", or that it has no room',
} as const;
export type Answer = keyof typeof ANSWERS;

const CODES = { fails: 'UNAVAILABLE', lost: 'DEADLINE_EXCEEDED', throttles: 'RESOURCE_EXHAUSTED' } as const satisfies {
  readonly [each in Exclude<Answer, 'answers'>]: ErrorCode;
};

/** Effects by their name, with what becomes of the next calls. */
export class Outside {
  readonly #planned = new Map<string, { readonly answer: Exclude<Answer, 'answers'>; left: number }>();

  plan(effect: string, answer: Answer, times: number): void {
    if (answer !== 'answers') this.#planned.set(effect, { answer, left: times });
  }

  clear(): void {
    this.#planned.clear();
  }

  readonly meet: Meet = (name, args, call) => {
    const planned = this.#planned.get(name);
    if (!planned || planned.left === 0) return call();
    planned.left -= 1;
    const refused = (): unknown => refusal(name, args, planned.answer);
    if (planned.answer !== 'lost') return refused();
    const result = call();
    return result instanceof Promise ? result.then(refused) : refused();
  };
}

function refusal(name: string, args: readonly unknown[], answer: Exclude<Answer, 'answers'>): unknown {
  if (name.startsWith('provider.') || name.startsWith('power.')) {
    const error = new FakeError(answer === 'throttles' ? 'throttled' : 'transient', `the test: ${name} ${answer}`);
    if (name !== 'provider.launch') return Promise.reject(error);
    const [batch] = args as [readonly LaunchRequest[]];
    return Promise.resolve(batch.map(({ token }) => ({ token, ok: false, error })));
  }
  const error = new InfraletError(CODES[answer], `the test: ${name} ${answer}`);
  if (name.startsWith('journal.') || name.startsWith('store.')) throw error;
  return Promise.reject(error);
}
