/** What the pod uses: read from the kernel's files each time; containers are those that containerd has made groups for. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerSample } from '../gen/infralet/agent/v1/ContainerSample.ts';
import type { Sample } from '../gen/infralet/agent/v1/Sample.ts';
import { GUEST_CGROUP_PARENT } from '../rpc/agent-protocol.ts';
import { readSmall, readUsage } from './cgroup.ts';
import { readInterfaces } from './interfaces.ts';
import { Layers } from './layers.ts';
import { type AgentOptions, LIMITS } from './options.ts';

const ID = /^[0-9a-f]{64}$/;
/** containerd's own note in a container's bundle: "sandbox" for the process that holds the pod's namespaces. */
const TYPE = 'io.kubernetes.cri.container-type';

export class Sampler {
  readonly #options: AgentOptions;
  readonly #pod: string;
  readonly #layers = new Layers();
  /** By id: whether it is the pod's sandbox. Bundles do not change. */
  readonly #kinds = new Map<string, 'sandbox' | 'container'>();

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#pod = join(options.cgroupDir, GUEST_CGROUP_PARENT);
  }

  /** @param layerMs least time between two walks through what a container has written. */
  take(layerMs: number): Sample {
    const ids = this.#groups();
    for (const id of this.#kinds.keys()) if (!ids.includes(id)) this.#kinds.delete(id);
    const containers = ids.filter((id) => this.#kind(id) === 'container');
    const sandbox = ids.find((id) => this.#kind(id) === 'sandbox');
    // Not waited for: the figures are in the next sample.
    void this.#layers.look(this.#upperDirectories(containers), layerMs);
    return {
      monotonicUs: Number(process.hrtime.bigint() / 1000n),
      pod: readUsage(this.#pod),
      containers: containers.map((id) => this.#container(id)),
      interfaces: sandbox === undefined ? [] : [...this.#interfaces(sandbox)],
      swapTotal: this.#swapTotal(),
    };
  }

  /** Bytes; a privileged container may add some. */
  #swapTotal(): number {
    const [, kibibytes = '0'] =
      /^SwapTotal:\s+(\d+) kB$/m.exec(readSmall(join(this.#options.procDir, 'meminfo'))) ?? [];
    return Number(kibibytes) * 1024;
  }

  #container(id: string): ContainerSample {
    const layer = this.#layers.get(id);
    return {
      id,
      usage: readUsage(join(this.#pod, id)),
      layer: layer
        ? { bytes: layer.bytes, inodes: layer.inodes, ageMs: Math.round(performance.now() - layer.at) }
        : null,
    };
  }

  #groups(): readonly string[] {
    try {
      const entries = readdirSync(this.#pod);
      return entries.filter((name) => ID.test(name)).slice(0, LIMITS.sampledContainers);
    } catch {
      return [];
    }
  }

  #kind(id: string): 'sandbox' | 'container' | undefined {
    const known = this.#kinds.get(id);
    if (known) return known;
    try {
      const bundle: unknown = JSON.parse(readFileSync(join(this.#options.bundlesDir, id, 'config.json'), 'utf8'));
      const { annotations } = bundle as { readonly annotations?: Readonly<Record<string, string>> };
      const kind = annotations?.[TYPE] === 'sandbox' ? 'sandbox' : 'container';
      this.#kinds.set(id, kind);
      return kind;
    } catch {
      // Just being made, or just removed.
      return undefined;
    }
  }

  /** As the pod's own namespace counts them; containers may have others. */
  #interfaces(sandbox: string): ReturnType<typeof readInterfaces> {
    const pid = readSmall(join(this.#options.bundlesDir, sandbox, 'init.pid')).trim();
    return /^\d+$/.test(pid) ? readInterfaces(join(this.#options.procDir, pid, 'net', 'dev')) : [];
  }

  /** The mounts of the containers' roots name them. */
  #upperDirectories(ids: readonly string[]): ReadonlyMap<string, string> {
    const found = new Map<string, string>();
    const roots = new Map(ids.map((id) => [join(this.#options.bundlesDir, id, 'rootfs'), id]));
    let mounts = '';
    try {
      mounts = readFileSync(join(this.#options.procDir, 'self', 'mountinfo'), 'utf8');
    } catch {
      return found;
    }
    for (const line of mounts.split('\n')) {
      const id = roots.get(unescaped(line.split(' ')[4] ?? ''));
      const upper = / - overlay \S+ (?:\S*,)?upperdir=([^, ]+)/.exec(line)?.[1];
      if (id !== undefined && upper !== undefined) found.set(id, unescaped(upper));
    }
    return found;
  }
}

/** proc(5) writes spaces and the like as octal numbers. */
function unescaped(text: string): string {
  return text.replaceAll(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
