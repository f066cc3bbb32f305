/** The configuration as JSON Schema, for editors and for finding the keys that are known at a path. */
import { z } from 'zod';
import { configSchema } from './schema.ts';

/** The parts of a JSON Schema that this code reads. */
export interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: unknown;
  readonly [keyword: string]: unknown;
}

/** What a configuration file may hold, with units, defaults and descriptions. */
export function configJsonSchema(): JsonSchema {
  const schema = z.toJSONSchema(configSchema, { io: 'input' });
  return { ...schema, title: 'Infralet configuration' } as JsonSchema;
}

/** Names allowed at `path`; empty where anything goes or nothing is known. */
export function knownKeys(path: readonly PropertyKey[], schema: JsonSchema = configJsonSchema()): readonly string[] {
  let at: JsonSchema | undefined = schema;
  for (const key of path) at = at?.properties?.[String(key)];
  return Object.keys(at?.properties ?? {});
}

/** Every section's keys as dotted paths, for a key that was put into the wrong section. */
export function allPaths(schema: JsonSchema = configJsonSchema(), prefix = ''): readonly string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, inner]) => [
    `${prefix}${key}`,
    ...allPaths(inner, `${prefix}${key}.`),
  ]);
}
