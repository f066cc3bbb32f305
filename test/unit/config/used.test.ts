/** No setting is silently ignored: each key of the configuration and of the providers' sections is read by the program. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const ROOT = join(import.meta.dirname, '../../..');
const SCHEMAS = ['src/config/', 'src/cloud/fleet-config.ts'];

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly anyOf?: readonly Schema[];
}

function keys(schema: Schema): readonly string[] {
  const { properties = {}, additionalProperties: more, anyOf = [] } = schema;
  return [
    ...Object.entries(properties).flatMap(([key, inner]) => [key, ...keys(inner)]),
    ...(typeof more === 'object' ? keys(more) : []),
    ...anyOf.flatMap(keys),
  ];
}

const sources = ['src', 'providers'].flatMap((folder) =>
  readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((name) => name.endsWith('.ts') && !name.startsWith('src/gen/')),
);
const text = new Map(sources.map((name) => [name, readFileSync(join(ROOT, name), 'utf8')]));

/** `config.key`, or `{ key }` and `{ key: name }` taken out of an object. */
const isRead = (key: string, below: string, but: (name: string) => boolean): boolean =>
  sources.some(
    (name) =>
      name.startsWith(below) &&
      !but(name) &&
      new RegExp(`\\??\\.${key}\\b|[{,]\\s*${key}\\b`).test(text.get(name) ?? ''),
  );

test('of the configuration file', () => {
  const schema = JSON.parse(readFileSync(join(ROOT, 'config/infralet.schema.json'), 'utf8')) as Schema;
  const all = new Set(keys(schema));
  expect(all.size).toBeGreaterThan(100);
  const declares = (name: string): boolean => SCHEMAS.some((each) => name.startsWith(each));
  expect([...all].filter((key) => !isRead(key, 'src/', declares))).toEqual([]);
});

test.each(['qemu', 'aws', 'gcp', 'fake'])('of the provider %s', (provider) => {
  const file = `providers/${provider}/config.ts`;
  const all = [...(text.get(file) ?? '').matchAll(/^ {2}(\w+): ?(?:z\n|z\.|bytes|duration|\w+Setting)/gm)].map(
    ([, key = '']) => key,
  );
  expect(all.length).toBeGreaterThan(2);
  expect(all.filter((key) => !isRead(key, `providers/${provider}/`, (name) => name === file))).toEqual([]);
});

test('that all clouds have', () => {
  const all = [
    ...(text.get('src/cloud/fleet-config.ts') ?? '').matchAll(/^ {4}(\w+): ?(?:z\n|z\.|bytes|duration)/gm),
  ].map(([, key = '']) => key);
  expect(all.length).toBeGreaterThan(10);
  expect(all.filter((key) => !isRead(key, '', (name) => SCHEMAS.includes(name)))).toEqual([]);
});
