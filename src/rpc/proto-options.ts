/** The one set of proto-loader options: the generated types (npm run gen) hold only for these. */
import type { Options } from '@grpc/proto-loader';

export const PROTO_OPTIONS = {
  longs: String,
  enums: String,
  defaults: true,
  oneofs: true,
} as const satisfies Options;
