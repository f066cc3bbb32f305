/** What providers need to read their own section of the configuration; part of the contract. */
import type { z } from 'zod';
import { InfraletError } from '../base/errors.ts';

export { bytes, duration } from '../config/units.ts';

/** Parses `providers.<name>`; the error names every wrong key with its path. */
export function parseSection<Schema extends z.ZodType>(
  provider: string,
  schema: Schema,
  section: unknown,
): z.output<Schema> {
  const result = schema.safeParse(section ?? {});
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => {
    const path = ['providers', provider, ...issue.path.map(String)].join('.');
    return `${path}: ${issue.message}`;
  });
  throw new InfraletError('INVALID_ARGUMENT', problems.join('; '), {
    hint: 'correct the configuration file; `infralet config check` shows all problems at once',
  });
}

/**
 * Settings of a command, above those of a provider's section: keys that the schema lacks are wrong in the former and of no
 * concern in the latter.
 */
export function parseOver<T extends z.ZodObject>(
  provider: string,
  schema: T,
  section: unknown,
  settings: Readonly<Record<string, string>>,
): z.output<T> {
  const unknown = Object.keys(settings).filter((key) => !Object.hasOwn(schema.shape, key));
  if (unknown.length > 0) {
    throw new InfraletError('INVALID_ARGUMENT', `${provider} has no setting ${unknown.join(', ')} here`, {
      hint: `there are ${Object.keys(schema.shape).join(', ')}`,
    });
  }
  return parseSection(provider, schema, { ...(typeof section === 'object' ? section : {}), ...settings });
}
