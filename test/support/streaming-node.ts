/** The streaming server as the daemon has it, and a wait for what happens on its sockets. */
import { systemClock, until } from '../../src/base/time.ts';
import { configSchema } from '../../src/config/schema.ts';
import { createStreamingServer, type StreamingServer } from '../../src/streaming/server.ts';
import { type Logger, nullLogger } from '../../src/telemetry/log.ts';

/** For one thing that a test waits for. */
export const soon = (): AbortSignal => AbortSignal.timeout(10_000);

export async function eventually(probe: () => boolean): Promise<void> {
  await until(() => (probe() ? true : undefined), { everyMs: 5, signal: soon() });
}

/** `streaming`: the section of the configuration file. */
export async function startStreaming(streaming: object = {}, log: Logger = nullLogger): Promise<StreamingServer> {
  const config = configSchema.parse({ streaming });
  return await createStreamingServer({ config: config.streaming, log, clock: systemClock });
}
