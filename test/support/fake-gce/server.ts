/**
 * A fake Compute Engine on a loopback port: real HTTP for the real client. Calls begin operations; what a zone lacks is told by
 * the operation; request ids and names are taken once; lists lag; calls per minute are counted.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { json } from 'node:stream/consumers';

import { furtherAddress, type Hardware, type LaunchBackend } from '../cloud/backend.ts';
import { FakeStorage } from './storage.ts';

type Json = Readonly<Record<string, unknown>>;

export interface FakeGceInstance {
  readonly zone: string;
  readonly name: string;
  /** As it was asked for. */
  readonly resource: Json;
  readonly address: string;
  readonly createdAt: number;
  status: string;
  statusMessage: string;
  console: string;
}

interface FakeOperation {
  readonly name: string;
  readonly doneAt: number;
  readonly error: { readonly code: string; readonly message: string } | undefined;
  readonly effect: () => void;
  applied: boolean;
}

export interface FakeGceOptions {
  /** How long an operation takes. */
  readonly operationMs: number;
  readonly lagMs: number;
  readonly zones: readonly string[];
  /** Calls of all kinds per minute; the rest is refused. */
  readonly callsPerMinute: number;
  readonly now: () => number;
  /** What machines really are. @default nothing */
  readonly backend?: LaunchBackend;
  /** First two numbers of all addresses; aliases come out of the next network. */
  readonly network: string;
}

export interface FakeGce extends AsyncDisposable {
  readonly endpoint: string;
  readonly instances: Map<string, FakeGceInstance>;
  /** Machines that were ever made. */
  readonly made: () => number;
  /** Disks that outlived their machine, by "zone/name". */
  readonly disks: Map<string, Json>;
  /** Machines left by "type/zone/model" (model: SPOT or STANDARD); absent: no end of them. */
  readonly capacity: Map<string, number>;
  readonly storage: FakeStorage;
  /** As they were asked for, by name. */
  readonly images: Map<string, Json>;
  readonly calls: { readonly method: string; readonly path: string; readonly at: number; status: number }[];
  /** Answers for the next calls whose "METHOD path" matches; `after`: the call has its effect all the same. */
  readonly script: {
    readonly match: RegExp;
    readonly when: 'before' | 'after';
    readonly status: number;
    /** `lost`: the connection breaks instead of an answer. */
    readonly reason: string;
  }[];
}

class HttpFault extends Error {
  readonly status: number;
  readonly reason: string;
  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }
}

const FAKE_TYPES = [
  { name: 'e2-small', guestCpus: 2, memoryMb: 2048, architecture: 'X86_64' },
  { name: 'n2-standard-2', guestCpus: 2, memoryMb: 8192, architecture: 'X86_64' },
] as const;

export async function startFakeGce(options: Partial<FakeGceOptions> = {}): Promise<FakeGce> {
  const settings: FakeGceOptions = {
    operationMs: 0,
    lagMs: 0,
    zones: ['us-east1-b', 'us-east1-c'],
    callsPerMinute: 1500,
    now: Date.now,
    network: '10.30',
    ...options,
  };
  const world = new World(settings);
  const server = createServer((request, response) => {
    world
      .answer(request, response)
      .catch((error: unknown) => response.destroy(error instanceof Error ? error : undefined));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return Object.assign(world, {
    endpoint: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  });
}

class World {
  readonly instances = new Map<string, FakeGceInstance>();
  readonly disks = new Map<string, Json>();
  readonly capacity = new Map<string, number>();
  readonly storage = new FakeStorage();
  readonly images = new Map<string, Json>([['infralet-1', { name: 'infralet-1' }]]);
  readonly calls: FakeGce['calls'] = [];
  readonly script: FakeGce['script'] = [];
  readonly #options: FakeGceOptions;
  readonly #operations = new Map<string, FakeOperation>();
  readonly #requests = new Map<string, string>();
  #count = 0;

  constructor(options: FakeGceOptions) {
    this.#options = options;
  }

  readonly made = (): number => this.#count;

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://fake');
    const method = request.method ?? 'GET';
    if (/^\/(upload\/)?storage\//.test(url.pathname)) return await this.storage.answer(request, response);
    const path = url.pathname.replace(/^\/compute\/v1\/projects\/[^/]+\//, '');
    const body = method === 'POST' || method === 'PUT' ? await readJson(request) : {};
    const call = { method, path, at: this.#options.now(), status: 200 };
    this.calls.push(call);
    response.setHeader('content-type', 'application/json');
    try {
      this.#limit();
      this.#scripted(`${method} ${path}`, 'before');
      const result = await this.#route(method, path, url.searchParams, body);
      this.#scripted(`${method} ${path}`, 'after');
      response.end(JSON.stringify(result));
    } catch (error) {
      const { status, reason, message } =
        error instanceof HttpFault ? error : new HttpFault(500, 'backendError', String(error));
      call.status = status;
      if (reason === 'lost') {
        response.destroy();
        return;
      }
      response.statusCode = status;
      response.end(JSON.stringify({ error: { code: status, message, errors: [{ message, reason }] } }));
    }
  }

  #limit(): void {
    // The quota is filled up anew with each minute of the clock.
    const minute = Math.floor(this.#options.now() / 60_000);
    const used = this.calls.filter(({ at }) => Math.floor(at / 60_000) === minute).length;
    if (used > this.#options.callsPerMinute) throw new HttpFault(403, 'rateLimitExceeded', 'Rate Limit Exceeded');
  }

  #scripted(text: string, when: 'before' | 'after'): void {
    const index = this.script.findIndex((entry) => entry.when === when && entry.match.test(text));
    const [entry] = index < 0 ? [] : this.script.splice(index, 1);
    if (entry)
      throw new HttpFault(
        entry.status,
        entry.reason,
        entry.reason === 'rateLimitExceeded' ? 'Rate Limit Exceeded' : `scripted ${entry.reason}`,
      );
  }

  async #route(method: string, path: string, query: URLSearchParams, body: Json): Promise<Json> {
    const [first, zone = '', kind, name = '', verb] = path.split('/');
    if (method === 'GET' && path === 'aggregated/instances')
      return this.#aggregated('instances', this.#visible(), query);
    if (method === 'GET' && path === 'aggregated/machineTypes') return this.#machineTypes();
    if (method === 'GET' && path === 'aggregated/disks') {
      const disks = [...this.disks].map(([id, disk]) => ({ zone: id.split('/')[0] ?? '', shown: disk }));
      return this.#aggregated('disks', disks, query);
    }
    if (first === 'global') return this.#global(method, path, body);
    if (first !== 'zones' || !this.#options.zones.includes(zone)) throw new HttpFault(404, 'notFound', `no ${path}`);
    if (kind === 'operations') return this.#operation(name);
    if (kind === 'disks' && method === 'GET') {
      const disk = this.disks.get(`${zone}/${name}`);
      if (!disk) throw new HttpFault(404, 'notFound', `no ${path}`);
      const users = ((disk['users'] ?? []) as readonly string[]).filter((user) => this.instances.has(machineOf(user)));
      return { ...disk, users };
    }
    if (kind === 'disks' && method === 'DELETE') return this.#begin(() => this.disks.delete(`${zone}/${name}`));
    if (kind !== 'instances') throw new HttpFault(404, 'notFound', `no ${path}`);
    if (method === 'POST' && name === '') return await this.#insert(zone, body, query.get('requestId') ?? '');
    const instance = this.instances.get(`${zone}/${name}`);
    if (!instance) throw new HttpFault(404, 'notFound', `The resource '${path}' was not found`);
    const { backend } = this.#options;
    const id = `${zone}/${name}`;
    if (method === 'DELETE') {
      await backend?.remove(id);
      return this.#begin(() => this.instances.delete(id));
    }
    if (method === 'POST' && verb === 'attachDisk') return this.#attach(zone, name, body);
    if (method === 'POST' && verb === 'detachDisk') {
      const disk = `${zone}/${query.get('deviceName') ?? ''}`;
      return this.#begin(() => this.disks.set(disk, { ...this.disks.get(disk), users: [] }));
    }
    if (method === 'POST' && verb === 'suspend') {
      await backend?.halt(id);
      return this.#begin(() => (instance.status = 'SUSPENDED'));
    }
    if (method === 'POST' && verb === 'resume') {
      await this.#switchOn(instance);
      return this.#begin(() => (instance.status = 'RUNNING'));
    }
    if (verb === 'serialPort') {
      const contents = (await backend?.console(id)) ?? instance.console;
      return { contents, start: '0', next: String(contents.length) };
    }
    return shown(instance);
  }

  #attach(zone: string, name: string, body: Json): Json {
    const source = String(body['source']).replace(/^.*zones\/([^/]+)\/disks\/([^/]+)$/, '$1/$2');
    const disk = this.disks.get(source);
    if (!disk || !source.startsWith(`${zone}/`)) throw new HttpFault(404, 'notFound', `no disk ${source}`);
    const error =
      ((disk['users'] ?? []) as readonly string[]).length > 0
        ? { code: 'RESOURCE_IN_USE_BY_ANOTHER_RESOURCE', message: `The disk resource ${source} is already being used` }
        : undefined;
    const user = `https://www.googleapis.com/compute/v1/projects/p/zones/${zone}/instances/${name}`;
    return this.#begin(() => !error && this.disks.set(source, { ...disk, users: [user] }), error);
  }

  /** Images, and the operations that make them. */
  #global(method: string, path: string, body: Json): Json {
    const [, kind, name = ''] = path.split('/');
    if (kind === 'operations') return this.#operation(name);
    if (method === 'POST' && kind === 'images') {
      const raw = body['rawDisk'] as Json | undefined;
      const object = String(raw?.['source']).replace('https://storage.googleapis.com/', '');
      if (!this.storage.objects.has(object)) {
        return this.#begin(() => undefined, { code: 'RESOURCE_NOT_FOUND', message: `there is no ${object}` });
      }
      return this.#begin(() => this.images.set(String(body['name']), body));
    }
    const image = this.images.get(name.replace(/^family$/, 'infralet-1'));
    if (!image) throw new HttpFault(404, 'notFound', `no ${path}`);
    return { name: image['name'] };
  }

  async #insert(zone: string, resource: Json, requestId: string): Promise<Json> {
    const before = this.#requests.get(requestId);
    if (before !== undefined) return this.#operation(before);
    const name = String(resource['name']);
    if (this.instances.has(`${zone}/${name}`))
      throw new HttpFault(409, 'alreadyExists', `The resource ${name} already exists`);
    const scheduling = resource['scheduling'] as Json | undefined;
    const place = `${String(resource['machineType']).replace(/^.*\//, '')}/${zone}/${String(scheduling?.['provisioningModel'])}`;
    const left = this.capacity.get(place) ?? Number.POSITIVE_INFINITY;
    if (left <= 0) {
      // The call is taken; only its operation tells that the zone is sold out.
      const message = `The zone '${zone}' does not have enough resources available to fulfill the request.`;
      return this.#remember(
        requestId,
        this.#begin(() => undefined, { code: 'ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS', message }),
      );
    }
    this.capacity.set(place, left - 1);
    this.#count += 1;
    const instance: FakeGceInstance = {
      zone,
      name,
      resource,
      address: `${this.#options.network}.${this.#count >> 8}.${this.#count & 255}`,
      createdAt: this.#options.now(),
      status: 'STAGING',
      statusMessage: '',
      console: `[    0.000000] fake machine ${name} has started\n`,
    };
    this.instances.set(`${zone}/${name}`, instance);
    await this.#switchOn(instance);
    return this.#remember(
      requestId,
      this.#begin(() => {
        if (instance.status === 'STAGING') instance.status = 'RUNNING';
      }),
    );
  }

  async #switchOn(instance: FakeGceInstance): Promise<void> {
    await this.#options.backend?.start(hardware(instance), () => {
      // Its disk stays until somebody deletes it.
      instance.status = 'TERMINATED';
      instance.statusMessage = 'it was shut down from within';
    });
  }

  #remember(requestId: string, operation: Json): Json {
    this.#requests.set(requestId, String(operation['name']));
    return operation;
  }

  #begin(effect: () => unknown, error?: FakeOperation['error']): Json {
    const name = `operation-${this.#operations.size + 1}`;
    const doneAt = this.#options.now() + this.#options.operationMs;
    this.#operations.set(name, { name, doneAt, error, effect: () => void effect(), applied: false });
    if (this.#options.operationMs > 0) {
      setTimeout(() => this.#operation(name), this.#options.operationMs + 1).unref();
    }
    return this.#operation(name);
  }

  #operation(name: string): Json {
    const operation = this.#operations.get(name);
    if (!operation) throw new HttpFault(404, 'notFound', `no operation ${name}`);
    const done = operation.doneAt <= this.#options.now();
    if (done && !operation.applied) {
      operation.applied = true;
      operation.effect();
    }
    return {
      name,
      status: done ? 'DONE' : 'RUNNING',
      ...(done && operation.error ? { error: { errors: [operation.error] } } : {}),
    };
  }

  #visible(): readonly { readonly zone: string; readonly shown: Json }[] {
    return [...this.instances.values()]
      .filter(({ createdAt }) => createdAt + this.#options.lagMs <= this.#options.now())
      .map((instance) => ({ zone: instance.zone, shown: shown(instance) }));
  }

  #aggregated(
    kind: string,
    entries: readonly { readonly zone: string; readonly shown: Json }[],
    query: URLSearchParams,
  ): Json {
    const filter = query.get('filter') ?? '';
    const terms = filter === '' ? [] : filter.split(' AND ').map((term) => /^labels\.([a-z-]+)=(.*)$/.exec(term));
    const matching = entries.filter(({ shown: entry }) =>
      terms.every((term) => (entry['labels'] as Json | undefined)?.[term?.[1] ?? ''] === term?.[2]),
    );
    const items = this.#options.zones.map(
      (zone) =>
        [
          `zones/${zone}`,
          { [kind]: matching.filter((entry) => entry.zone === zone).map((entry) => entry.shown) },
        ] as const,
    );
    return { items: Object.fromEntries(items) };
  }

  #machineTypes(): Json {
    return {
      items: Object.fromEntries(this.#options.zones.map((zone) => [`zones/${zone}`, { machineTypes: FAKE_TYPES }])),
    };
  }
}

function shown({ resource, name, zone, address, createdAt, status, statusMessage }: FakeGceInstance): Json {
  return {
    ...resource,
    name,
    zone: `https://fake/zones/${zone}`,
    status,
    statusMessage,
    creationTimestamp: new Date(createdAt).toISOString(),
    networkInterfaces: [{ networkIP: address, ...aliases(resource, address) }],
  };
}

function hardware({ zone, name, address, resource }: FakeGceInstance): Hardware {
  const [disk] = (resource['disks'] ?? []) as readonly { readonly initializeParams?: Json }[];
  const { items = [] } = (resource['metadata'] ?? {}) as { readonly items?: readonly Json[] };
  const userData = items.find(({ key }) => key === 'infralet-user-data')?.['value'];
  return {
    ...{ id: `${zone}/${name}`, address },
    image: String(disk?.initializeParams?.['sourceImage']).replace(/^.*\//, ''),
    diskGib: Number(disk?.initializeParams?.['diskSizeGb']),
    userData: typeof userData === 'string' ? userData : undefined,
    spot: (resource['scheduling'] as Json | undefined)?.['provisioningModel'] === 'SPOT',
  };
}

/** "/32" asks for any one address of a range; what is shown is the one that was taken. */
function aliases(resource: Json, address: string): Json {
  const [nic] = (resource['networkInterfaces'] ?? []) as readonly Json[];
  const asked = (nic?.['aliasIpRanges'] ?? []) as readonly Json[];
  return {
    aliasIpRanges: asked.map((each) => ({
      ...each,
      ipCidrRange: furtherAddress(address) + String(each['ipCidrRange']),
    })),
  };
}

async function readJson(request: IncomingMessage): Promise<Json> {
  try {
    return (await json(request)) as Json;
  } catch {
    return {};
  }
}

function machineOf(url: string): string {
  return url.replace(/^.*\/zones\/([^/]+)\/instances\/([^/]+)$/, '$1/$2');
}
