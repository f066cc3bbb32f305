/** What machine a pod would get, and why no other, for `infralet explain size`; nothing is made. */
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { Explanation, MachineShape, Provider } from '../cloud/contract.ts';
import type { Placement } from '../cloud/offers.ts';
import type { Config } from '../config/schema.ts';
import { machineDemand, type PodFootprint, requirePlaceable } from './placement.ts';

const integer = z
  .string()
  .regex(/^-?[0-9]{1,19}$/)
  .default('0');
const resources = z.object({
  cpuPeriod: integer,
  cpuQuota: integer,
  cpuShares: integer,
  memoryLimitInBytes: integer,
});
const footprint = z.object({
  name: z.string(),
  namespace: z.string(),
  runtimeHandler: z.string(),
  annotations: z.record(z.string(), z.string()),
  resources: resources.nullable(),
  overhead: resources.nullable(),
});

export interface SizeExplanation {
  readonly pod: string;
  readonly runtimeHandler: string;
  readonly provider: string;
  readonly shape: MachineShape;
  readonly placement: Placement;
  /** Absent where the provider has no choice. */
  readonly offers?: Explanation;
}

/** Reads what another program says of a pod. Throws INVALID_ARGUMENT. */
export function parseFootprint(json: string): PodFootprint {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch (error) {
    throw new InfraletError('INVALID_ARGUMENT', 'pod_json: is no JSON', { cause: error });
  }
  const parsed = footprint.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new InfraletError('INVALID_ARGUMENT', `pod_json: ${z.prettifyError(parsed.error)}`);
}

/** Fails where RunPodSandbox would refuse the pod, with the same words. */
export async function explainSize(
  pod: PodFootprint,
  config: Pick<Config, 'machine' | 'profiles' | 'policy' | 'runtimeHandlers'>,
  provider: Pick<Provider, 'name' | 'explain'>,
  signal: AbortSignal,
): Promise<SizeExplanation> {
  const { runtimeHandler } = pod;
  const name = `${pod.namespace}/${pod.name}`;
  if (!config.runtimeHandlers.includes(runtimeHandler)) {
    const known = config.runtimeHandlers.map((each) => JSON.stringify(each)).join(', ');
    throw new InfraletError(
      'INVALID_ARGUMENT',
      `pod ${name}: there is no runtime handler ${JSON.stringify(runtimeHandler)}`,
      {
        hint: `this node has ${known}; --handler names another, \`runtimeHandlers\` and \`profiles\` add more`,
      },
    );
  }
  const { shape, placement } = machineDemand(pod, config);
  requirePlaceable(placement, provider, name);
  const offers = await provider.explain?.(shape, placement, signal);
  return { pod: name, runtimeHandler, provider: provider.name, shape, placement, ...(offers ? { offers } : {}) };
}
