import { appendFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { chooseOffers } from '../../../src/cloud/choice.ts';
import type { MachineShape } from '../../../src/cloud/contract.ts';
import type { Offer, Placement } from '../../../src/cloud/offers.ts';
import { configSchema } from '../../../src/config/schema.ts';
import { explainSize, parseFootprint } from '../../../src/sandbox/explain.ts';
import { type CliDaemon, cliDaemon } from '../../support/cli-daemon.ts';

let daemon: CliDaemon;
beforeEach(async () => {
  daemon = await cliDaemon();
});
afterEach(async () => await daemon[Symbol.asyncDispose]());

const settings = configSchema.parse({ profiles: { 'vmpod-spot': { market: 'spot' } } });
const offer = (type: string, pricePerHour: number, cpuMillis: number): Offer => ({
  type: { name: type, architecture: 'amd64', cpuMillis, memoryBytes: 8 * 2 ** 30, gpus: undefined },
  ...{ zone: 'a', market: 'on-demand', pricePerHour, estimated: false },
});
/** A cloud with two types of machines. */
const cloud = {
  name: 'small-cloud',
  explain: async (shape: MachineShape, placement: Placement) => {
    const { ranked, rejected } = chooseOffers({
      ...{ shape, placement, reserve: { fixed: 0, share: 0 }, unavailable: () => undefined },
      offers: [offer('big.large', 0.2, 8000), offer('tiny.small', 0.1, 2000)],
    });
    const flat = ({ type, ...each }: Offer) => ({ ...each, ...type, type: type.name });
    return {
      ranked: ranked.map(flat),
      rejected: rejected.map(({ offer: each, reason }) => ({ offer: flat(each), reason })),
    };
  },
};

const serve = async () =>
  await daemon.serve({
    explainSize: async (pod, signal) => await explainSize(parseFootprint(pod), settings, cloud, signal),
  });

describe('explain size', () => {
  const manifest = (cpu: string, extra = ''): string =>
    `apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop${extra}}\n` +
    `spec: {containers: [{name: a, image: x, resources: {limits: {cpu: "${cpu}", memory: 1Gi}}}]}\n`;
  const explain = async (text: string, ...more: readonly string[]) => {
    const file = join(daemon.directory, 'pod.yaml');
    await writeFile(file, text);
    return await daemon.run('explain', 'size', file, ...more);
  };

  it('shows the ranking with prices and why the others are left out', async () => {
    await using _admin = await serve();
    const both = await explain(manifest('1'));
    expect(both.code).toBe(0);
    expect(both.out).toContain('pod shop/web: 1 CPU, 1.2 GiB of memory, 10.0 GiB of disk');
    expect(both.out).toMatch(/1 +tiny\.small +a +on-demand +2 +8\.0 GiB +- +0\.1000\n2 +big\.large/);
    const one = await explain(manifest('4'));
    expect(one.out).toMatch(/1 +it has 2000 of 4000 thousandths of a CPU +tiny\.small/);
    const none = await explain(manifest('9'));
    expect(none.code).toBe(1);
    expect(none.out).toContain('no offer will do');
  });

  it('takes the handler of the command line, and gives everything as JSON', async () => {
    await using _admin = await serve();
    const { code, out } = await explain(manifest('1'), '--handler', 'vmpod-spot', '--json');
    expect(code).toBe(1);
    expect(JSON.parse(out)).toMatchObject({
      placement: { market: 'spot' },
      offers: {
        ranked: [],
        rejected: [{ reason: 'it is on-demand, spot is wanted' }, { offer: { type: 'tiny.small' } }],
      },
    });
  });

  it('refuses as the daemon would refuse the pod', async () => {
    await using _admin = await serve();
    await expect(explain(manifest('1', ', annotations: {infralet.dev/market: spot}'))).rejects.toThrow(
      'pod shop/web: annotation infralet.dev/market: pods of this namespace may not have it',
    );
    await expect(explain(manifest('1'), '--handler', 'other')).rejects.toThrow('there is no runtime handler "other"');
  });

  it('asks the provider itself where no daemon runs', async () => {
    await appendFile(daemon.config, 'provider: fake\n');
    const { code, out } = await explain(manifest('1'));
    expect(code).toBe(0);
    expect(out).toContain('the provider fake makes machines of any size');
  });
});
