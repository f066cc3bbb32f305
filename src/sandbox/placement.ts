/**
 * What machine a pod gets: its size from the CRI's resources, and all else from the annotations `infralet.dev/…` and from the
 * profile of its runtime handler. An annotation goes before the profile, where the policy lets the namespace have it. Pure.
 */
import { InfraletError } from '../base/errors.ts';
import { matchesGlob } from '../base/glob.ts';
import type { MachineShape, Provider } from '../cloud/contract.ts';
import { ARCHITECTURES, MARKETS, type Placement } from '../cloud/offers.ts';
import type { Config } from '../config/schema.ts';
import { nearest } from '../config/suggest.ts';
import { parseBytes } from '../config/units.ts';
import { type CriResources, machineShape } from './sizing.ts';

const PREFIX = 'infralet.dev/';
const WANTED_MARKETS = [...MARKETS, 'spot-preferred'] as const;
const MAX_GPUS = 64;
/** Of a list in an annotation. */
const MAX_ITEMS = 50;

/** What is known of a pod when its machine is chosen. */
export interface PodFootprint {
  readonly name: string;
  readonly namespace: string;
  readonly runtimeHandler: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly resources: CriResources | null;
  /** Of the pod's RuntimeClass. */
  readonly overhead: CriResources | null;
}

export interface MachineDemand {
  readonly shape: MachineShape;
  readonly placement: Placement;
}

interface Wishes extends Omit<Placement, 'gpu'> {
  readonly memoryBytes?: number;
  readonly diskBytes?: number;
  readonly gpuCount?: number;
  readonly gpuModel?: string;
}

/** Returns undefined where the value is none; `wrong` says in words what it must be. */
const ANNOTATIONS: Readonly<
  Record<string, { readonly read: (value: string) => Wishes | undefined; readonly wanted: string }>
> = {
  'memory-request': { read: size('memoryBytes'), wanted: 'a size such as 512Mi' },
  'disk-size': { read: size('diskBytes'), wanted: 'a size such as 20Gi' },
  'gpu-count': {
    read: (value) => {
      const gpuCount = /^[0-9]{1,2}$/.test(value) ? Number(value) : 0;
      return gpuCount >= 1 && gpuCount <= MAX_GPUS ? { gpuCount } : undefined;
    },
    wanted: `a number from 1 to ${MAX_GPUS}`,
  },
  'gpu-model': {
    read: (value) => (/^[A-Za-z0-9 ._*-]{1,100}$/.test(value) ? { gpuModel: value } : undefined),
    wanted: 'the name of a model, in which * stands for anything',
  },
  'instance-type': {
    read: list(/^[A-Za-z0-9.*_-]{1,100}$/, (types) => ({ types })),
    wanted: 'names of instance types with commas between them, in which * stands for anything',
  },
  zone: {
    read: list(/^[A-Za-z0-9-]{1,100}$/, (zones) => ({ zones })),
    wanted: 'names of zones with commas between them',
  },
  market: {
    read: (value) => one(WANTED_MARKETS, value, (market) => ({ market })),
    wanted: `one of ${WANTED_MARKETS.join(', ')}`,
  },
  architecture: {
    read: (value) => one(ARCHITECTURES, value, (architecture) => ({ architecture })),
    wanted: `one of ${ARCHITECTURES.join(', ')}`,
  },
};

/** Throws INVALID_ARGUMENT or PERMISSION_DENIED naming annotation and pod, RESOURCE_EXHAUSTED for what no machine has. */
export function machineDemand(
  pod: PodFootprint,
  config: Pick<Config, 'machine' | 'profiles' | 'policy'>,
): MachineDemand {
  const { machine } = config;
  const asked = readAnnotations(pod, config.policy.annotations);
  const profile = config.profiles[pod.runtimeHandler] ?? {};
  const { architecture = machine.architecture } = asked;
  if (architecture !== machine.architecture) {
    refuse(pod, 'architecture', `this node makes ${machine.architecture} machines only`);
  }
  const limit = Number(pod.resources?.memoryLimitInBytes ?? 0);
  if (asked.memoryBytes !== undefined && limit > 0 && asked.memoryBytes > limit) {
    refuse(pod, 'memory-request', `it is more than the pod's limit of ${limit} bytes`);
  }
  const gpuCount = asked.gpuCount ?? profile.gpu?.count;
  if (gpuCount === undefined && asked.gpuModel !== undefined) {
    refuse(pod, 'gpu-model', `it has no effect without ${PREFIX}gpu-count`);
  }
  const gpuModel = asked.gpuModel ?? profile.gpu?.model;
  const types = asked.types ?? profile.instanceTypes;
  const zones = asked.zones ?? profile.zones;
  const market = asked.market ?? profile.market;
  const diskBytes = asked.diskBytes ?? profile.disk;
  const { memoryBytes } = asked;
  return {
    shape: machineShape(pod.resources, pod.overhead, machine, { memoryBytes, diskBytes }),
    placement: {
      architecture,
      ...(gpuCount === undefined
        ? {}
        : { gpu: { count: gpuCount, ...(gpuModel === undefined ? {} : { model: gpuModel }) } }),
      ...(types === undefined ? {} : { types }),
      ...(zones === undefined ? {} : { zones }),
      ...(market === undefined ? {} : { market }),
    },
  };
}

/** What the machines of a pool are like beside their size: what its pods would get without annotations. */
export function profilePlacement(
  runtimeHandler: string,
  config: Pick<Config, 'machine' | 'profiles' | 'policy'>,
): Placement {
  const nobody = { name: '', namespace: '', annotations: {}, resources: null, overhead: null };
  return machineDemand({ ...nobody, runtimeHandler }, config).placement;
}

/** Whether both ask for the same. A machine that waits for a pod is taken only where its demands were the pod's. */
export function samePlacement(a: Placement, b: Placement): boolean {
  return placementKey(a) === placementKey(b);
}

function placementKey({ architecture, gpu, types, zones, market = 'on-demand' }: Placement): string {
  return JSON.stringify([architecture, gpu?.count, gpu?.model, types, zones, market]);
}

/** A provider with one kind of machine must not let a pod believe that it got what it asked for. */
export function requirePlaceable(
  { gpu, types, zones, market }: Placement,
  provider: Pick<Provider, 'name' | 'explain'>,
  pod: string,
): void {
  if (provider.explain) return;
  const asked = [
    ...(gpu ? ['a GPU'] : []),
    ...(types ? ['an instance type'] : []),
    ...(zones ? ['a zone'] : []),
    ...(market === 'spot' ? ['the spot market'] : []),
  ];
  if (asked.length === 0) return;
  throw new InfraletError(
    'FAILED_PRECONDITION',
    `pod ${pod} asks for ${asked.join(' and ')}; the provider ${provider.name} has one kind of machine`,
    { hint: 'run the pod on a node whose provider is a cloud, or without these annotations or this runtime class' },
  );
}

function readAnnotations(pod: PodFootprint, policy: Config['policy']['annotations']): Wishes {
  let wishes: Wishes = {};
  for (const [key, value] of Object.entries(pod.annotations)) {
    if (!key.startsWith(PREFIX)) continue;
    const name = key.slice(PREFIX.length);
    const annotation = Object.hasOwn(ANNOTATIONS, name) ? ANNOTATIONS[name] : undefined;
    if (!annotation) {
      const near = nearest(name, Object.keys(ANNOTATIONS));
      refuse(pod, name, `there is no such annotation${near === undefined ? '' : `; did you mean ${PREFIX}${near}?`}`);
    }
    requireAllowed(pod, name, policy);
    const read = annotation.read(value);
    if (!read) refuse(pod, name, `${JSON.stringify(value.slice(0, 100))} is not ${annotation.wanted}`);
    wishes = { ...wishes, ...read };
  }
  return wishes;
}

function requireAllowed(
  { name, namespace }: PodFootprint,
  annotation: string,
  policy: Config['policy']['annotations'],
): void {
  const rule = policy.find(({ namespaces }) => namespaces.some((glob) => matchesGlob(glob, namespace)));
  if (rule?.allow.some((glob) => matchesGlob(glob, annotation))) return;
  throw new InfraletError(
    'PERMISSION_DENIED',
    `pod ${namespace}/${name}: annotation ${PREFIX}${annotation}: pods of this namespace may not have it`,
    { hint: 'policy.annotations in the configuration says which namespaces may' },
  );
}

function refuse({ name, namespace }: PodFootprint, annotation: string, why: string): never {
  throw new InfraletError('INVALID_ARGUMENT', `pod ${namespace}/${name}: annotation ${PREFIX}${annotation}: ${why}`, {
    hint: `correct the annotation; \`infralet explain size FILE\` shows what a pod gets`,
  });
}

function size(key: 'memoryBytes' | 'diskBytes'): (value: string) => Wishes | undefined {
  return (value) => {
    const bytes = parseBytes(value);
    return bytes !== undefined && bytes > 0 && Number.isSafeInteger(bytes) ? { [key]: bytes } : undefined;
  };
}

function list(item: RegExp, wish: (items: readonly string[]) => Wishes): (value: string) => Wishes | undefined {
  return (value) => {
    const items = value.split(',').map((each) => each.trim());
    return items.length <= MAX_ITEMS && items.every((each) => item.test(each)) ? wish(items) : undefined;
  };
}

function one<Word extends string>(
  words: readonly Word[],
  value: string,
  wish: (word: Word) => Wishes,
): Wishes | undefined {
  const word = words.find((each) => each === value);
  return word && wish(word);
}
