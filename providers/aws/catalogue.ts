/** Which types are to be had in which zone and market, from EC2's own description of them. */
import {
  type _InstanceType,
  DescribeInstanceTypeOfferingsCommand,
  DescribeInstanceTypesCommand,
  DescribeSpotPriceHistoryCommand,
  type EC2Client,
  type InstanceTypeInfo,
} from '@aws-sdk/client-ec2';
import type { MachineType, Offer } from '../../src/cloud/kit.ts';
import { onDemandPrice, spotPrice } from './prices.ts';

const PAGE = 100;
const MIB = 2 ** 20;

export async function readCatalogue(
  client: EC2Client,
  options: {
    readonly types: readonly string[];
    /** Zones that a subnet was configured for. */
    readonly zones: readonly string[];
    readonly prices: Readonly<Record<string, number>>;
    readonly now: number;
  },
  signal: AbortSignal,
): Promise<readonly Offer[]> {
  const [types, zonesOf, spot] = await Promise.all([
    readTypes(client, options.types, signal),
    readZones(client, options, signal),
    readSpotPrices(client, options, signal),
  ]);
  return types.flatMap(({ type, markets }) =>
    [...(zonesOf.get(type.name) ?? [])].flatMap((zone) => {
      const usual = onDemandPrice(type, options.prices);
      const offers: Offer[] = [];
      if (markets.includes('on-demand')) offers.push({ type, zone, market: 'on-demand', ...usual });
      if (markets.includes('spot')) {
        const listed = spot.get(`${type.name}/${zone}`);
        offers.push({ type, zone, market: 'spot', ...spotPrice(usual.pricePerHour, listed) });
      }
      return offers;
    }),
  );
}

interface TypeEntry {
  readonly type: MachineType;
  readonly markets: readonly string[];
}

async function readTypes(
  client: EC2Client,
  globs: readonly string[],
  signal: AbortSignal,
): Promise<readonly TypeEntry[]> {
  const found: TypeEntry[] = [];
  let next: string | undefined;
  do {
    const page = await client.send(
      new DescribeInstanceTypesCommand({
        MaxResults: PAGE,
        ...(next === undefined ? {} : { NextToken: next }),
        Filters: [{ Name: 'instance-type', Values: [...globs] }],
      }),
      { abortSignal: signal },
    );
    for (const info of page.InstanceTypes ?? []) {
      const type = machineType(info);
      if (type) found.push({ type, markets: info.SupportedUsageClasses ?? ['on-demand'] });
    }
    next = page.NextToken;
  } while (next !== undefined && next !== '');
  return found;
}

/** The first that there is a guest for; EC2 has names of its own. */
export function architectureOf(names: readonly (string | undefined)[] = []): MachineType['architecture'] | undefined {
  if (names.includes('x86_64')) return 'amd64';
  return names.includes('arm64') ? 'arm64' : undefined;
}

function machineType(info: InstanceTypeInfo): MachineType | undefined {
  const cpus = info.VCpuInfo?.DefaultVCpus;
  const memory = info.MemoryInfo?.SizeInMiB;
  const architecture = architectureOf(info.ProcessorInfo?.SupportedArchitectures);
  if (info.InstanceType === undefined || cpus === undefined || memory === undefined || !architecture) return undefined;
  // Nobody's pod needs a whole server, and it takes ten minutes to start.
  if (info.BareMetal) return undefined;
  const gpus = info.GpuInfo?.Gpus ?? [];
  const count = gpus.reduce((sum, gpu) => sum + (gpu.Count ?? 0), 0);
  return {
    name: info.InstanceType,
    architecture,
    cpuMillis: cpus * 1000,
    memoryBytes: memory * MIB,
    gpus: count > 0 ? { model: gpus[0]?.Name ?? '', count } : undefined,
  };
}

async function readZones(
  client: EC2Client,
  options: { readonly types: readonly string[]; readonly zones: readonly string[] },
  signal: AbortSignal,
): Promise<ReadonlyMap<string, ReadonlySet<string>>> {
  const found = new Map<string, Set<string>>();
  let next: string | undefined;
  do {
    const page = await client.send(
      new DescribeInstanceTypeOfferingsCommand({
        LocationType: 'availability-zone',
        ...(next === undefined ? {} : { NextToken: next }),
        Filters: [
          { Name: 'location', Values: [...options.zones] },
          { Name: 'instance-type', Values: [...options.types] },
        ],
      }),
      { abortSignal: signal },
    );
    for (const { InstanceType: type, Location: zone } of page.InstanceTypeOfferings ?? []) {
      if (type === undefined || zone === undefined || !options.zones.includes(zone)) continue;
      found.set(type, (found.get(type) ?? new Set()).add(zone));
    }
    next = page.NextToken;
  } while (next !== undefined && next !== '');
  return found;
}

/** The newest price by "type/zone". */
async function readSpotPrices(
  client: EC2Client,
  options: { readonly types: readonly string[]; readonly now: number },
  signal: AbortSignal,
): Promise<ReadonlyMap<string, number>> {
  const found = new Map<string, number>();
  const exact = options.types.filter((name) => !name.includes('*'));
  let next: string | undefined;
  do {
    const page = await client.send(
      new DescribeSpotPriceHistoryCommand({
        // A start that is now yields the one price that holds now.
        StartTime: new Date(options.now),
        ProductDescriptions: ['Linux/UNIX'],
        ...(exact.length === options.types.length ? { InstanceTypes: exact as _InstanceType[] } : {}),
        ...(next === undefined ? {} : { NextToken: next }),
      }),
      { abortSignal: signal },
    );
    for (const entry of page.SpotPriceHistory ?? []) {
      const price = Number(entry.SpotPrice);
      const key = `${entry.InstanceType ?? ''}/${entry.AvailabilityZone ?? ''}`;
      if (Number.isFinite(price) && price > 0 && !found.has(key)) found.set(key, price);
    }
    next = page.NextToken;
  } while (next !== undefined && next !== '');
  return found;
}
