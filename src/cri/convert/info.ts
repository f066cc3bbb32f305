/** The `info` map of verbose answers: one entry "info" with JSON, as crictl and others expect. */
export function verboseInfo(
  verbose: boolean,
  info: () => Readonly<Record<string, unknown>>,
): Readonly<Record<string, string>> {
  return verbose ? { info: JSON.stringify(info(), plain) } : {};
}

/** JSON has no 64-bit integers; bytes are shown as base64 the way protobuf's JSON does. */
function plain(this: unknown, _key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
