/** A collector of OpenTelemetry traces: OTLP as JSON over HTTP, as far as tests look at it. */
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { z } from 'zod';

const value = z.object({
  stringValue: z.string().optional(),
  intValue: z.union([z.string(), z.number()]).optional(),
  boolValue: z.boolean().optional(),
});
const span = z.object({
  traceId: z.string().regex(/^[0-9a-f]{32}$/),
  spanId: z.string().regex(/^[0-9a-f]{16}$/),
  parentSpanId: z.string().optional(),
  name: z.string(),
  kind: z.number(),
  startTimeUnixNano: z.string(),
  endTimeUnixNano: z.string(),
  attributes: z.array(z.object({ key: z.string(), value })).default([]),
  links: z.array(z.object({ traceId: z.string(), spanId: z.string() })).default([]),
  status: z.object({ code: z.number().optional(), message: z.string().optional() }).default({}),
});
const body = z.object({
  resourceSpans: z.array(
    z.object({
      resource: z.object({ attributes: z.array(z.object({ key: z.string(), value })) }),
      scopeSpans: z.array(z.object({ spans: z.array(span) })),
    }),
  ),
});

export type CollectedSpan = z.output<typeof span>;

export interface Collector extends AsyncDisposable {
  readonly endpoint: string;
  readonly spans: () => readonly CollectedSpan[];
  /** Attributes of whoever sent, as text. */
  readonly resource: () => Readonly<Record<string, string>>;
  /** Headers of the last export. */
  readonly headers: () => Readonly<Record<string, unknown>>;
}

export async function startCollector(): Promise<Collector> {
  const spans: CollectedSpan[] = [];
  let resource: Record<string, string> = {};
  let headers: Readonly<Record<string, unknown>> = {};
  const server = createServer((request, response) => {
    const parts: Buffer[] = [];
    request.on('data', (part: Buffer) => parts.push(part));
    request.on('end', () => {
      headers = request.headers;
      const parsed = body.safeParse(JSON.parse(Buffer.concat(parts).toString()));
      if (request.url !== '/v1/traces' || request.method !== 'POST' || !parsed.success) {
        response.writeHead(400).end(parsed.error?.message ?? 'wrong place');
        return;
      }
      for (const each of parsed.data.resourceSpans) {
        resource = Object.fromEntries(
          each.resource.attributes.map(({ key, value: { stringValue = '' } }) => [key, stringValue]),
        );
        spans.push(...each.scopeSpans.flatMap((scope) => scope.spans));
      }
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`,
    spans: () => spans,
    resource: () => resource,
    headers: () => headers,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      const closed = once(server, 'close');
      server.close();
      await closed;
    },
  };
}
