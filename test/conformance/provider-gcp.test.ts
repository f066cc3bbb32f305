/** The suite over a fake Compute Engine: the real client, real HTTP, operations that take their time. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Provider } from '../../src/cloud/contract.ts';
import { openGcp } from '../support/fake-gce/open.ts';
import { startFakeGce } from '../support/fake-gce/server.ts';
import { providerSuite } from './provider-suite.ts';

providerSuite(
  'gcp',
  async () => {
    const gce = await startFakeGce();
    const stateDir = await mkdtemp(join(tmpdir(), 'infralet-test-'));
    let opened: Provider | undefined;
    return {
      durable: true,
      open: async () => {
        opened = openGcp({ endpoint: gce.endpoint, stateDir });
        return opened;
      },
      volume: async ({ purchase }) => {
        const name = `data-${gce.disks.size}`;
        gce.disks.set(`${purchase?.zone ?? ''}/${name}`, { name });
        return `${purchase?.zone ?? ''}/${name}`;
      },
      consoleReady: async (provider, id, signal) => await provider.console(id, 1000, signal),
      leftovers: async () => {
        const known = await opened?.describe({ by: 'tags', tags: {} }, AbortSignal.timeout(10_000));
        const ids = new Set<string>(known?.map(({ id }) => id));
        return [...gce.instances.keys()].filter((id) => !ids.has(id));
      },
      [Symbol.asyncDispose]: async () => {
        await gce[Symbol.asyncDispose]();
        await rm(stateDir, { recursive: true });
      },
    };
  },
  { offers: ['leftovers', 'explain', 'power', 'volumes', 'figures'] },
);
