/** A log out of a machine, checked: its bytes in order, in pieces of bounded size. */
import { InfraletError } from '../base/errors.ts';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import { LOG_CHUNK_BYTES } from '../rpc/agent-protocol.ts';
import type { LogBytes } from './channel.ts';
import { streamed } from './files.ts';

export async function* readLog(
  client: AgentClient,
  name: string,
  from: number,
  signal: AbortSignal,
): AsyncGenerator<LogBytes> {
  let expected = from;
  for await (const { offset: text, data, ended } of streamed(client.ReadLog({ name, offset: from }), signal)) {
    const offset = Number(text);
    if (!Number.isSafeInteger(offset) || offset < expected || data.length > LOG_CHUNK_BYTES) {
      throw new InfraletError('DATA_LOSS', `the agent sent log bytes of ${text}, not of ${expected}`);
    }
    expected = offset + data.length;
    yield { offset, data, ended: ended && data.length === 0 };
  }
}
