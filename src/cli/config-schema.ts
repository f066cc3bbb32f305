/** `infralet config schema`: the configuration as JSON Schema, with units, defaults and meanings. */
import { configJsonSchema } from '../config/json-schema.ts';
import { type Io, line } from './io.ts';

export function configSchema(io: Io): void {
  line(io.out, JSON.stringify(configJsonSchema(), undefined, 2));
}
