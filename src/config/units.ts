/** Durations ("250ms", "60s", "2h") and sizes ("512Mi", "10G", plain bytes) as zod types that yield ms and bytes. */
import { z } from 'zod';

const MILLISECONDS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
const BYTES = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
} as const;

/** Milliseconds of a text such as "90s"; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text);
  return match ? Number(match[1]) * MILLISECONDS[match[2] as keyof typeof MILLISECONDS] : undefined;
}

/** Bytes of a text such as "512Mi"; undefined when it is none. */
export function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(|k|M|G|T|Ki|Mi|Gi|Ti)$/.exec(text);
  return match ? Math.round(Number(match[1]) * BYTES[match[2] as keyof typeof BYTES]) : undefined;
}

type Parse = (text: string) => number | undefined;

function written(example: string, pattern: string) {
  return z.union([z.string().meta({ pattern, examples: [JSON.parse(example)] }), z.number()]);
}

function compiled(parse: Parse, example: string) {
  return (value: string | number, context: z.RefinementCtx): number => {
    const parsed = parse(String(value));
    if (parsed !== undefined) return parsed;
    context.addIssue({
      code: 'custom',
      message: `${JSON.stringify(value)} has no unit I know; write it like ${example}`,
    });
    return z.NEVER;
  };
}

function quantity(parse: Parse, example: string, pattern: string, fallback: string) {
  return written(example, pattern).default(fallback).transform(compiled(parse, example));
}

const BYTES_PATTERN = '^[0-9]+(\\.[0-9]+)?(k|M|G|T|Ki|Mi|Gi|Ti)?$';

export const duration = (fallback: string) =>
  quantity(parseDuration, '"60s"', '^[0-9]+(\\.[0-9]+)?(ms|s|m|h)$', fallback);
export const bytes = (fallback: string) => quantity(parseBytes, '"512Mi"', BYTES_PATTERN, fallback);
/** For settings whose default is another setting. */
export const optionalBytes = () =>
  written('"512Mi"', BYTES_PATTERN).transform(compiled(parseBytes, '"512Mi"')).optional();
