/** Turns a table of handlers into a service of grpc-js. */
import type { ServiceDefinition, UntypedHandleCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import { type AdapterOptions, type CallContext, serverStream, unary } from '../rpc/adapter.ts';
import type { CriDeps, Handler, StreamHandler } from './deps.ts';
import { encodeContainerStats, encodePodMetrics, encodePodStats } from './encode.ts';
import { itemwise } from './itemwise.ts';

/** A table entry without its message types: the table itself has been checked against the proto. */
type AnyEntry =
  | { readonly kind: 'absent'; readonly why: string }
  // `never` as request: a handler of any request fits, and none can be called by mistake.
  | { readonly kind: 'unary'; readonly handle: Handler<never, unknown> }
  | { readonly kind: 'stream'; readonly handle: StreamHandler<never, unknown> };

/** Responses that are nothing but one list: the field with the list, what the items are (null: each is given once), and who encodes them. */
const LISTS: Readonly<
  Record<string, readonly [field: string, items: string | null, encode?: (item: never) => Buffer]>
> = {
  ListContainers: ['containers', 'container'],
  StreamContainers: ['containers', 'container'],
  ListPodSandbox: ['items', 'sandbox'],
  StreamPodSandboxes: ['podSandboxes', 'sandbox'],
  ListContainerStats: ['stats', 'container stats', encodeContainerStats],
  StreamContainerStats: ['containerStats', 'container stats', encodeContainerStats],
  ListPodSandboxStats: ['stats', 'sandbox stats', encodePodStats],
  StreamPodSandboxStats: ['podSandboxStats', 'sandbox stats', encodePodStats],
  ListPodSandboxMetrics: ['podMetrics', null, encodePodMetrics],
  StreamPodSandboxMetrics: ['podSandboxMetrics', null, encodePodMetrics],
};

/** The definition with list responses encoded item by item. */
export function withItemwiseLists(definition: ServiceDefinition): ServiceDefinition {
  // All of them have the list as field 1: whole or in pieces, an item's encoding is the same.
  const encodings = new Map<string, WeakMap<object, Buffer>>();
  return Object.fromEntries(
    Object.entries(definition).map(([rpc, method]) => {
      const list = LISTS[rpc];
      if (!list) return [rpc, method];
      const [field, items, encode] = list;
      const kept = items === null ? null : (encodings.get(items) ?? new WeakMap<object, Buffer>());
      if (items !== null && kept) encodings.set(items, kept);
      return [
        rpc,
        {
          ...method,
          responseSerialize: itemwise(
            method.responseSerialize,
            field,
            kept,
            encode as ((item: object) => Buffer) | undefined,
          ),
        },
      ];
    }),
  );
}

export function implementation(
  definition: ServiceDefinition,
  table: Readonly<Record<string, AnyEntry>>,
  deps: CriDeps,
  adapter: AdapterOptions,
): UntypedServiceImplementation {
  const handlers: Record<string, UntypedHandleCall> = {};
  for (const [rpc, method] of Object.entries(definition)) {
    const entry = table[rpc] ?? { kind: 'absent', why: '' };
    if (entry.kind === 'unary') {
      const handle = entry.handle as Handler<unknown, unknown>;
      handlers[rpc] = unary(adapter, rpc, async (request: unknown, context: CallContext) =>
        handle(deps, request, context),
      );
    } else if (entry.kind === 'stream') {
      const handle = entry.handle as StreamHandler<unknown, unknown>;
      handlers[rpc] = serverStream(adapter, rpc, (request: unknown, context: CallContext) =>
        handle(deps, request, context),
      );
    } else if (method.responseStream) {
      handlers[rpc] = serverStream(adapter, rpc, () => unimplemented(rpc, entry.why));
    } else {
      handlers[rpc] = unary(adapter, rpc, async () => unimplemented(rpc, entry.why));
    }
  }
  return handlers;
}

function unimplemented(rpc: string, why: string): never {
  throw new InfraletError('UNIMPLEMENTED', `${rpc} is not implemented by infralet${why === '' ? '' : `: ${why}`}`);
}
