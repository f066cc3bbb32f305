/**
 * A pod as a file tells of it: a manifest of Kubernetes (also one that has a pod for a template) or the PodSandboxConfig that
 * `crictl runp` takes. Resources are added up as the kubelet does it before it asks for a sandbox.
 */
import { parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { PodFootprint } from '../sandbox/placement.ts';
import type { CriResources } from '../sandbox/sizing.ts';

const quantity = z.union([z.string(), z.number()]).transform(String);
const quantities = z.record(z.string(), quantity).default({});
const resources = z.object({ requests: quantities, limits: quantities }).prefault({});
const container = z.object({ resources, restartPolicy: z.string().optional() });
const metadata = z.object({
  name: z.string().default(''),
  generateName: z.string().default(''),
  namespace: z.string().default('default'),
  annotations: z.record(z.string(), z.string()).nullish(),
});
const podSpec = z.object({
  runtimeClassName: z.string().nullish(),
  overhead: quantities.nullish(),
  resources: resources.nullish(),
  initContainers: z.array(container).nullish(),
  containers: z.array(container).min(1),
});
const pod = z.object({ metadata: metadata.prefault({}), spec: podSpec });
const workload = z.object({ metadata: metadata.prefault({}), spec: z.object({ template: pod }) });

const number = z
  .union([z.string().regex(/^-?[0-9]{1,19}$/), z.int()])
  .transform(String)
  .default('0');
const criResources = z.object({ cpuPeriod: number, cpuQuota: number, cpuShares: number, memoryLimitInBytes: number });
const sandbox = z.object({
  metadata: z.object({ name: z.string(), namespace: z.string().default('') }),
  annotations: z.record(z.string(), z.string()).default({}),
  linux: z
    .object({ resources: criResources.nullish(), overhead: criResources.nullish() })
    .nullish()
    .transform((linux) => linux ?? {}),
});

type PodSpec = z.output<typeof podSpec>;
interface Amounts {
  readonly cpu: number;
  readonly memory: number;
}

/** @param handler the runtime handler; default: the manifest's runtimeClassName, or none. Throws INVALID_ARGUMENT. */
export function readPod(text: string, file: string, handler: string | undefined): PodFootprint {
  const values = parseAllDocuments(text).flatMap((document): readonly unknown[] => {
    const [problem] = document.errors;
    if (problem) throw new InfraletError('INVALID_ARGUMENT', `${file}: ${problem.message}`);
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    return value === null ? [] : [value];
  });
  const manifest = values.find((value) => has(value, 'spec'));
  if (manifest !== undefined) return fromManifest(manifest, file, handler);
  const request = values.find((value) => has(value, 'metadata'));
  if (request !== undefined) return fromRequest(camelCased(request), file, handler);
  throw new InfraletError('INVALID_ARGUMENT', `${file} holds no pod`, {
    hint: 'give the manifest of a pod (YAML or JSON), or a PodSandboxConfig as crictl runp takes it',
  });
}

function fromManifest(value: unknown, file: string, handler: string | undefined): PodFootprint {
  const templated = has(value, 'spec') && has(value.spec, 'template') ? check(workload, value, file) : undefined;
  const { metadata: outer, spec } = templated
    ? { metadata: templated.metadata, spec: templated.spec.template.spec }
    : check(pod, value, file);
  const inner = templated ? templated.spec.template.metadata : outer;
  const overhead = amounts(spec.overhead ?? {}, file);
  return {
    name: outer.name === '' ? outer.generateName : outer.name,
    namespace: outer.namespace,
    runtimeHandler: handler ?? spec.runtimeClassName ?? '',
    annotations: inner.annotations ?? {},
    resources: sandboxResources(spec, file),
    overhead:
      overhead.cpu + overhead.memory === 0
        ? null
        : { ...NONE, cpuShares: shares(overhead.cpu), memoryLimitInBytes: String(overhead.memory) },
  };
}

function fromRequest(value: unknown, file: string, handler: string | undefined): PodFootprint {
  const { metadata: names, annotations, linux } = check(sandbox, value, file);
  return {
    ...names,
    runtimeHandler: handler ?? '',
    annotations,
    resources: linux.resources ?? null,
    overhead: linux.overhead ?? null,
  };
}

const NONE: CriResources = { cpuPeriod: '0', cpuQuota: '0', cpuShares: '0', memoryLimitInBytes: '0' };
/** Microseconds; the kubelet's. */
const PERIOD = 100_000;

function sandboxResources(spec: PodSpec, file: string): CriResources {
  const requests = total(spec, 'requests', file);
  const limits = total(spec, 'limits', file);
  const cpu = requests.cpu > 0 ? requests.cpu : limits.cpu;
  return {
    cpuPeriod: limits.cpu > 0 ? String(PERIOD) : '0',
    cpuQuota: limits.cpu > 0 ? String(Math.max(1000, (limits.cpu * PERIOD) / 1000)) : '0',
    cpuShares: shares(cpu),
    memoryLimitInBytes: String(limits.memory),
  };
}

function shares(cpuMillis: number): string {
  return String(Math.max(2, Math.floor((cpuMillis * 1024) / 1000)));
}

/** What runs side by side at most: sidecars with the containers, or with one init container after the other. */
function total(spec: PodSpec, which: 'requests' | 'limits', file: string): Amounts {
  let sidecars: Amounts = { cpu: 0, memory: 0 };
  let starting: Amounts = { cpu: 0, memory: 0 };
  for (const init of spec.initContainers ?? []) {
    const own = amounts(init.resources[which], file);
    if (init.restartPolicy === 'Always') sidecars = sum(sidecars, own);
    starting = most(starting, init.restartPolicy === 'Always' ? sidecars : sum(sidecars, own));
  }
  const running = spec.containers.map((each) => amounts(each.resources[which], file)).reduce(sum, sidecars);
  const added = most(running, starting);
  // What the pod says as a whole goes before what its containers say.
  const whole = spec.resources?.[which] ?? {};
  const stated = amounts(whole, file);
  return { cpu: 'cpu' in whole ? stated.cpu : added.cpu, memory: 'memory' in whole ? stated.memory : added.memory };
}

function sum(a: Amounts, b: Amounts): Amounts {
  return { cpu: a.cpu + b.cpu, memory: a.memory + b.memory };
}

function most(a: Amounts, b: Amounts): Amounts {
  return { cpu: Math.max(a.cpu, b.cpu), memory: Math.max(a.memory, b.memory) };
}

function amounts(list: Readonly<Record<string, string>>, file: string): Amounts {
  const { cpu = '0', memory = '0' } = list;
  return { cpu: Math.ceil(parseQuantity(cpu, file) * 1000), memory: Math.ceil(parseQuantity(memory, file)) };
}

const SUFFIXES: Readonly<Record<string, number>> = {
  ...{ n: 1e-9, u: 1e-6, m: 1e-3, '': 1, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, E: 1e18 },
  ...{ Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50, Ei: 2 ** 60 },
};

function parseQuantity(text: string, file: string): number {
  const match = /^(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,3})|([a-zA-Z]{0,2}))$/.exec(text);
  const factor = match?.[2] === undefined ? SUFFIXES[match?.[3] ?? ''] : 10 ** Number(match[2]);
  if (match && factor !== undefined) return Number(match[1]) * factor;
  throw new InfraletError('INVALID_ARGUMENT', `${file}: ${JSON.stringify(text)} is no quantity`);
}

function check<Schema extends z.ZodType>(schema: Schema, value: unknown, file: string): z.output<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path, message }) => `${path.map(String).join('.')}: ${message}`);
  throw new InfraletError('INVALID_ARGUMENT', `${file}: ${problems.join('; ')}`);
}

function has<Key extends string>(value: unknown, key: Key): value is Readonly<Record<Key, unknown>> {
  return typeof value === 'object' && value !== null && key in value;
}

/** crictl writes `cpu_quota`, protobuf's JSON `cpuQuota`. The keys of annotations are left as they are. */
function camelCased(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]): readonly [string, unknown] => [
      key.replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()),
      key === 'annotations' || key === 'labels' ? inner : camelCased(inner),
    ]),
  );
}
