/** A log out of a machine, checked: its bytes in order, in pieces of bounded size. */
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import { LOG_CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import type { LogBytes } from './channel.ts';
import { misconduct } from './conduct.ts';
import { streamed } from './files.ts';

export async function* readLog(
  client: AgentClient,
  name: string,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<LogBytes> {
  let expected = from;
  let first = true;
  let over = false;
  for await (const { offset: text, data, ended } of streamed(client.ReadLog({ name, offset: from }), signal)) {
    const offset = Number(text);
    // What was let go of is missing at the beginning only.
    const placed = first ? offset >= expected : offset === expected;
    first = false;
    if (!Number.isSafeInteger(offset) || !placed || data.length > LOG_CHUNK_BYTES) {
      throw misconduct('DATA_LOSS', `the agent sent log bytes of ${text}, not of ${expected}`);
    }
    // Endless words about nothing would keep the node from everything else.
    if (data.length === 0 && (over || !ended)) throw misconduct('DATA_LOSS', 'the agent sends a log that says nothing');
    over = data.length === 0;
    expected = offset + data.length;
    yield { offset, data, ended: ended && data.length === 0 };
  }
}
