/**
 * The CRI's wire facts, kept apart from the proto file: one line per RPC, message and enum, `*` for repeated. A change
 * of a number, type or name breaks every client that exists, so it must be made here, too, on purpose.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type EnumType, type FieldType, loadDefinitions, type MessageType } from '../compatibility/proto.ts';

const FACTS = readFileSync(join(import.meta.dirname, 'cri-proto.facts.txt'), 'utf8')
  .trim()
  .split('\n');

const short = (typeName: string): string => typeName.replace(/^.*\./, '');

function typeOf(field: FieldType, message: MessageType): string {
  const entry = message.nestedType.find((nested) => nested.name === short(field.typeName) && nested.options?.mapEntry);
  if (entry) return `map<${entry.field.map((part) => typeOf(part, entry)).join(',')}>`;
  const name = field.typeName === '' ? field.type.replace('TYPE_', '').toLowerCase() : short(field.typeName);
  return field.label === 'LABEL_REPEATED' ? `${name}*` : name;
}

function messageFacts(message: MessageType, prefix = ''): string[] {
  const fields = message.field.map((field) => `${field.number} ${field.name} ${typeOf(field, message)}`);
  return [
    `message ${prefix}${message.name}: ${fields.join('; ')}`.trim(),
    ...message.enumType.map((nested) => enumFact(nested, `${message.name}.`)),
  ];
}

function enumFact(type: EnumType, prefix = ''): string {
  return `enum ${prefix}${type.name}: ${type.value.map((value) => `${value.number} ${value.name}`).join('; ')}`;
}

test('the proto file says what the CRI says, and nothing else', () => {
  const found: string[] = [];
  for (const [name, definition] of Object.entries(loadDefinitions())) {
    if (!('format' in definition)) {
      for (const [rpc, method] of Object.entries(definition)) {
        if (!('path' in method)) continue;
        const [request, response] = [method.requestType.type, method.responseType.type] as { readonly name: string }[];
        const stream = method.responseStream ? ' stream' : '';
        found.push(`${short(name)}: ${rpc}(${request?.name}) ${response?.name}${stream}`);
      }
    } else if (definition.format === 'Protocol Buffer 3 EnumDescriptorProto') {
      if (/^runtime\.v1\.[A-Za-z0-9]+$/.test(name)) found.push(enumFact(definition.type as EnumType));
    } else if (/^runtime\.v1\.[A-Za-z0-9]+$/.test(name)) {
      found.push(...messageFacts(definition.type as MessageType));
    }
  }
  expect(FACTS.length).toBeGreaterThan(200);
  expect(found.sort()).toEqual([...FACTS].sort());
});
