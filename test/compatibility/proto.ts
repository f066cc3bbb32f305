/** The CRI's messages and RPCs as the proto file has them, and walks over messages that go by it. */
import { join } from 'node:path';
import { loadSync, type PackageDefinition } from '@grpc/proto-loader';
import { PROTO_DIR } from '../../src/rpc/load.ts';

/** Descriptors as proto-loader gives them. */
export interface FieldType {
  readonly name: string;
  readonly number: number;
  readonly label: string;
  readonly type: string;
  readonly typeName: string;
}

export interface MessageType {
  readonly name: string;
  readonly field: readonly FieldType[];
  readonly nestedType: readonly (MessageType & { readonly options?: { readonly mapEntry?: boolean } | null })[];
  readonly enumType: readonly EnumType[];
}

export interface EnumType {
  readonly name: string;
  readonly value: readonly { readonly name: string; readonly number: number }[];
}

export function loadDefinitions(): PackageDefinition {
  return loadSync(join(PROTO_DIR, 'cri/v1/runtime.proto'), { keepCase: true });
}

export interface Field {
  /** As the proto file spells it: `container_id`. */
  readonly name: string;
  /** As messages have it here: `containerId`. */
  readonly property: string;
  /** Name of the message type, if it is one. */
  readonly message: string | undefined;
  readonly repeated: boolean;
}

export interface Rpc {
  readonly service: string;
  readonly name: string;
  readonly request: string;
  readonly response: string;
  readonly stream: boolean;
}

export interface Cri {
  readonly messages: ReadonlyMap<string, readonly Field[]>;
  readonly rpcs: readonly Rpc[];
}

const PACKAGE = 'runtime.v1.';
const short = (typeName: string): string => typeName.replace(/^\.?runtime\.v1\./, '');
const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

export function readCri(): Cri {
  const messages = new Map<string, readonly Field[]>();
  const rpcs: Rpc[] = [];
  for (const [name, definition] of Object.entries(loadDefinitions())) {
    if (!name.startsWith(PACKAGE)) continue;
    if (!('format' in definition)) {
      for (const [rpc, method] of Object.entries(definition)) {
        const [request, response] = [method.requestType.type, method.responseType.type] as { readonly name: string }[];
        rpcs.push({
          service: short(name),
          name: rpc,
          request: request?.name ?? '',
          response: response?.name ?? '',
          stream: method.responseStream,
        });
      }
    } else if (definition.format === 'Protocol Buffer 3 DescriptorProto') {
      const type = definition.type as MessageType;
      if (!short(name).includes('.'))
        messages.set(
          type.name,
          type.field.map((field) => convert(field, type)),
        );
    }
  }
  return { messages, rpcs };
}

function convert(field: FieldType, message: MessageType): Field {
  const type = short(field.typeName);
  const map = message.nestedType.some((nested) => type.endsWith(nested.name) && nested.options?.mapEntry === true);
  return {
    name: field.name,
    property: camel(field.name),
    message: field.type === 'TYPE_MESSAGE' && !map ? type : undefined,
    repeated: field.label === 'LABEL_REPEATED' && !map,
  };
}

/** "Message.field". */
export type FieldKey = `${string}.${string}`;

/** Every field below a message, itself included, whatever a value holds. */
export function reachable({ messages }: Cri, message: string, found = new Set<FieldKey>()): Set<FieldKey> {
  for (const field of messages.get(message) ?? []) {
    const key: FieldKey = `${message}.${field.name}`;
    if (found.has(key)) continue;
    found.add(key);
    if (field.message !== undefined) reachable({ messages, rpcs: [] }, field.message, found);
  }
  return found;
}

type Visit = (key: FieldKey, values: readonly unknown[]) => void;

/**
 * Visits every field that the first value sets to other than its default, with what each value has there. Elements of
 * lists are taken together by their place.
 */
export function walk(cri: Cri, message: string, values: readonly unknown[], visit: Visit): void {
  for (const field of cri.messages.get(message) ?? []) {
    const there = values.map((value) => (value as Record<string, unknown> | null | undefined)?.[field.property]);
    if (isDefault(there[0])) continue;
    visit(`${message}.${field.name}`, there);
    if (field.message === undefined) continue;
    if (!field.repeated) walk(cri, field.message, there, visit);
    else {
      for (const index of (there[0] as readonly unknown[]).keys()) {
        walk(
          cri,
          field.message,
          there.map((list) => (list as readonly unknown[] | undefined)?.[index]),
          visit,
        );
      }
    }
  }
}

/** Enums arrive by name; the zero value of each enum of the CRI that matters here. */
const ZERO_NAMES: ReadonlySet<unknown> = new Set([
  'TCP',
  'POD',
  'Merge',
  'RuntimeDefault',
  'PROPAGATION_PRIVATE',
  'SIGNAL_RUNTIME_DEFAULT',
]);

function isDefault(value: unknown): boolean {
  if (value === null || value === undefined || value === '' || value === '0' || value === 0 || value === false)
    return true;
  if (ZERO_NAMES.has(value)) return true;
  if (Array.isArray(value) || Buffer.isBuffer(value)) return value.length === 0;
  return typeof value === 'object' && Object.keys(value).length === 0;
}
