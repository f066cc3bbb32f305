/** The suite over a fake EC2: the real SDK, real HTTP, the published limits. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Provider } from '../../src/cloud/contract.ts';
import { openAws } from '../support/fake-ec2/open.ts';
import { startFakeEc2 } from '../support/fake-ec2/server.ts';
import { providerSuite } from './provider-suite.ts';

providerSuite(
  'aws',
  async () => {
    const ec2 = await startFakeEc2();
    const stateDir = await mkdtemp(join(tmpdir(), 'infralet-test-'));
    let opened: Provider | undefined;
    return {
      durable: true,
      open: async () => {
        opened = openAws({ endpoint: ec2.endpoint, stateDir });
        return opened;
      },
      volume: async ({ purchase }) => {
        const id = `vol-${String(ec2.cloud.volumes.size).padStart(17, 'a')}`;
        ec2.cloud.volumes.set(id, { id, zone: purchase?.zone ?? '', attachment: undefined, looks: 0 });
        return id;
      },
      consoleReady: async (provider, id, signal) => await provider.console(id, 1000, signal),
      leftovers: async () => {
        const known = await opened?.describe({ by: 'tags', tags: {} }, AbortSignal.timeout(10_000));
        const ids = new Set<string>(known?.map(({ id }) => id));
        return ec2.cloud.alive.map(({ id }) => id).filter((id) => !ids.has(id));
      },
      [Symbol.asyncDispose]: async () => {
        await ec2[Symbol.asyncDispose]();
        await rm(stateDir, { recursive: true });
      },
    };
  },
  { offers: ['leftovers', 'explain', 'power', 'volumes', 'figures'] },
);
