/** From the cloud's API to an enrolled agent, on both clouds: machines are agents' processes that ask for their user data. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { newSandboxId } from '../../../src/base/ids.ts';
import { until } from '../../../src/base/time.ts';
import { type Instance, TAGS } from '../../../src/cloud/contract.ts';
import type { CloudProvider } from '../../../src/cloud/provider.ts';
import { AgentWorld, soon } from '../../support/agent/machine.ts';
import { AgentCloud } from '../../support/cloud/agent-cloud.ts';
import { openAws } from '../../support/fake-ec2/open.ts';
import { startFakeEc2 } from '../../support/fake-ec2/server.ts';
import { openGcp } from '../../support/fake-gce/open.ts';
import { startFakeGce } from '../../support/fake-gce/server.ts';

const OWNER = { [TAGS.cluster]: 'test', [TAGS.node]: 'n' };

const CLOUDS = {
  ec2: {
    start: startFakeEc2,
    open: openAws,
    asked: ['GET /latest/meta-data/instance-id 200', 'GET /latest/user-data 200'],
    ended: 'terminated',
  },
  gce: {
    start: startFakeGce,
    open: openGcp,
    asked: ['GET /computeMetadata/v1/instance/attributes/infralet-user-data 200'],
    // It is there until it is deleted.
    ended: 'stopped',
  },
} as const;

test.each(['ec2', 'gce'] as const)(
  '%s: agents learn who they are, enrol, and end with their machines',
  async (kind) => {
    await using world = await AgentWorld.create();
    const backend = new AgentCloud(kind, world);
    const { start, open, asked, ended } = CLOUDS[kind];
    await using cloud = await start({ backend, network: backend.network });
    const stateDir = await mkdtemp(join(tmpdir(), 'infralet-test-'));
    world.use({ [Symbol.asyncDispose]: async () => await rm(stateDir, { recursive: true }) });
    await using provider: CloudProvider = open({ endpoint: cloud.endpoint, stateDir, owner: OWNER });
    const signal = AbortSignal.timeout(100_000);
    const dialer = world.dialer(await world.pki());

    // EC2 makes both with one call: their tokens follow from their ids.
    const wishes = ['a', 'b'].map((name) => ({ name, sandboxId: newSandboxId(), token: dialer.newToken() }));
    const results = await provider.launch(
      wishes.map(({ name, sandboxId, token }) => ({
        token: `launch-${name}`,
        tags: { ...OWNER, [TAGS.sandbox]: sandboxId },
        shape: { cpuMillis: 1000, memoryBytes: 2 ** 30, diskBytes: 10 * 2 ** 30 },
        userData: dialer.userData(token, { sandboxId }),
      })),
      signal,
    );
    const instances = results.map((result): Instance => {
      if (!result.ok) throw new Error('not launched', { cause: result.error });
      return result.instance;
    });
    for (const [index, { id, agent, enrolToken, start: how }] of instances.entries()) {
      const wish = wishes[index];
      if (!agent || !wish) throw new Error('no address');
      expect(how).toBe('boot');
      const identity = { sandboxId: wish.sandboxId, instanceId: id };
      const token = enrolToken ?? wish.token;
      const channel = world.use(await dialer.enrol(agent, identity, token, soon()));
      expect(Number((await channel.status(soon())).uptimeMs)).toBeGreaterThan(0);
      // It is another's, or it was used.
      await expect(dialer.enrol(agent, identity, token, soon())).rejects.toThrow();
      expect(backend.requests(id)).toEqual(expect.arrayContaining([...asked]));
      expect(await provider.console(id, 10_000, signal)).toContain('listening');
    }

    const [first, second] = instances;
    if (!first || !second) throw new Error('two were asked for');
    await backend.crash(first.id);
    const seen = async (id: Instance['id']) => (await provider.describe({ by: 'ids', ids: [id] }, signal))[0]?.state;
    await until(async () => ((await seen(first.id)) === ended ? true : undefined), { everyMs: 20, signal });
    expect(await seen(second.id)).toBe('running');
    await provider.terminate([first.id, second.id], signal);
    await until(() => (backend.running.length === 0 ? true : undefined), { everyMs: 10, signal });
  },
);
