/** The machines of a node, as its QEMU provider has written them down. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import { parseInstanceId } from '../../src/base/ids.ts';
import { systemClock } from '../../src/base/time.ts';
import { TAGS } from '../../src/cloud/contract.ts';
import type { Config } from '../../src/config/schema.ts';
import { configSchema } from '../../src/config/schema.ts';
import { createDialer } from '../../src/guest/dialer.ts';
import { openPki } from '../../src/pki/authority.ts';
import { nullLogger } from '../../src/telemetry/log.ts';

const schema = z.object({
  id: z.string().transform(parseInstanceId),
  tags: z.record(z.string(), z.string()),
  port: z.number(),
  cgroup: z.string(),
  process: z.object({ pid: z.number() }),
});
export type Machine = z.output<typeof schema>;

export async function readMachine(stateDir: string, id: string): Promise<Machine> {
  const path = join(stateDir, 'providers', 'qemu', 'machines', id, 'machine.json');
  return schema.parse(JSON.parse(await readFile(path, 'utf8')));
}

/** Resident bytes of a machine's agent, by its own account: asked over a second connection, with the node's own key. */
export async function agentResident(config: Config, machine: Machine): Promise<number> {
  const { stateDir, cluster, pki, server } = config;
  const authority = await openPki({ ...pki, stateDir, cluster, clock: systemClock, log: nullLogger });
  const dialer = createDialer({
    pki: authority,
    tokens: {
      consume: () => {
        throw new InfraletError('INTERNAL', 'nothing enrols here');
      },
    },
    limits: configSchema.parse({}).guest,
    maxMessage: server.maxMessage,
    clock: systemClock,
    log: nullLogger,
  });
  const options = { signal: AbortSignal.timeout(20_000), timeoutMs: 20_000 };
  const identity = { sandboxId: machine.tags[TAGS.sandbox] ?? '', instanceId: machine.id };
  try {
    await using channel = await dialer.connect({ host: '127.0.0.1', port: machine.port }, identity, options);
    return Number((await channel.status(options)).agentResidentBytes);
  } catch (error) {
    throw new Error(`the agent of machine ${machine.id} does not answer: ${errorMessage(error)}`, { cause: error });
  }
}
