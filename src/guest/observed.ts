/** A channel whose failures somebody is told of. */
import type { AgentChannel } from './channel.ts';

/** The channel itself, but for `onError`, which is told of every call and stream that fails. */
export function observed(channel: AgentChannel, onError: (error: unknown) => void): AgentChannel {
  return new Proxy(channel, {
    get: (target, key) => {
      const member: unknown = Reflect.get(target, key);
      if (typeof member !== 'function') return member;
      return (...given: readonly unknown[]): unknown => {
        const result: unknown = Reflect.apply(member, target, given);
        if (result instanceof Promise) result.catch(onError);
        return isStream(result) ? told(result, onError) : result;
      };
    },
  });
}

function isStream(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === 'object' && value !== null && Symbol.asyncIterator in value && !('pipe' in value);
}

async function* told(stream: AsyncIterable<unknown>, onError: (error: unknown) => void): AsyncIterable<unknown> {
  try {
    yield* stream;
  } catch (error) {
    onError(error);
    throw error;
  }
}
