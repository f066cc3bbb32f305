/** Turns a table of handlers into a service of grpc-js. */
import type { ServiceDefinition, UntypedHandleCall, UntypedServiceImplementation } from '@grpc/grpc-js';
import { InfraletError } from '../base/errors.ts';
import { type AdapterOptions, type CallContext, serverStream, unary } from '../rpc/adapter.ts';
import type { CriDeps, Handler } from './deps.ts';
import { itemwise } from './itemwise.ts';

/** A table entry without its message types: the table itself has been checked against the proto. */
type AnyEntry =
  | { readonly kind: 'absent' }
  // `never` as request: a handler of any request fits, and none can be called by mistake.
  | { readonly kind: 'unary'; readonly handle: Handler<never, unknown> };

/** Responses that are nothing but one list, and the field with the list. */
const LISTS: Readonly<Record<string, string>> = { ListContainers: 'containers', ListPodSandbox: 'items' };

/** The definition with list responses encoded item by item. */
export function withItemwiseLists(definition: ServiceDefinition): ServiceDefinition {
  return Object.fromEntries(
    Object.entries(definition).map(([rpc, method]) => {
      const field = LISTS[rpc];
      return [rpc, field ? { ...method, responseSerialize: itemwise(method.responseSerialize, field) } : method];
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
    const entry = table[rpc] ?? { kind: 'absent' };
    if (entry.kind === 'unary') {
      const handle = entry.handle as Handler<unknown, unknown>;
      handlers[rpc] = unary(adapter, rpc, async (request: unknown, context: CallContext) =>
        handle(deps, request, context),
      );
    } else if (method.responseStream) {
      handlers[rpc] = serverStream(adapter, rpc, () => unimplemented(rpc));
    } else {
      handlers[rpc] = unary(adapter, rpc, async () => unimplemented(rpc));
    }
  }
  return handlers;
}

function unimplemented(rpc: string): never {
  throw new InfraletError('UNIMPLEMENTED', `${rpc} is not implemented by infralet`);
}
