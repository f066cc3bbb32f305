/** Huge pages that the containers of a pod may use: what the machine must reserve, and which limits it hears of. Pure. */
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { HugepageLimit__Output } from '../gen/runtime/v1/HugepageLimit.ts';

const UNITS = { KB: 2 ** 10, MB: 2 ** 20, GB: 2 ** 30 } as const;
/** Every machine has pages of this size; others depend on its processor. */
const COMMON = '2MB';

/** Bytes of a page size as the CRI spells it ("2MB", "1GB"); undefined when it is none. */
export function pageBytes(size: string): number | undefined {
  const [, digits, unit] = /^([1-9]\d{0,5})([KMG]B)$/.exec(size) ?? [];
  return unit === undefined ? undefined : Number(digits) * UNITS[unit as keyof typeof UNITS];
}

export interface HugePageNeed {
  readonly pageBytes: number;
  readonly count: number;
}

/** The pages that all containers of a pod may use together; sizes without any are left out. */
export function hugePagesOf(configs: readonly ContainerConfig__Output[]): readonly HugePageNeed[] {
  const bytes = new Map<number, number>();
  for (const { pageSize, limit } of configs.flatMap(limitsOf)) {
    const size = pageBytes(pageSize);
    if (size !== undefined && Number(limit) > 0) bytes.set(size, (bytes.get(size) ?? 0) + Number(limit));
  }
  return [...bytes].map(([size, total]) => ({ pageBytes: size, count: Math.ceil(total / size) }));
}

/**
 * The limits that the machine gets. A kubelet sends one for each size that the node has, most of them 0; a machine without
 * that size has no file to write it to, and no such page either.
 */
export function guestHugepageLimits(
  limits: readonly HugepageLimit__Output[],
  ofPod: readonly HugePageNeed[],
): HugepageLimit__Output[] {
  const reserved = (size: string): boolean => ofPod.some((need) => need.pageBytes === pageBytes(size));
  return limits.filter(({ pageSize }) => pageSize === COMMON || reserved(pageSize));
}

function limitsOf(config: ContainerConfig__Output): readonly HugepageLimit__Output[] {
  return config.linux?.resources?.hugepageLimits ?? [];
}
