/** Prometheus: the figures in its text format, over HTTP. Loaded only when metrics are configured. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { Logger } from './log.ts';
import type { Labels, Meters, Reading } from './meters.ts';

export interface MetricsServer extends AsyncDisposable {
  readonly meters: Meters;
  /** Where the figures are: http://ADDRESS:PORT/metrics */
  readonly url: string;
}

export interface MetricsOptions {
  readonly address: string;
  /** 0: any free one. */
  readonly port: number;
  readonly version: string;
  readonly log: Logger;
}

/** Scrapers keep one connection each; more would only be somebody who plays. */
const MAX_CONNECTIONS = 32;
const REQUEST_MS = 10_000;

/** Resolves when scrapers can connect. */
export async function startMetrics(options: MetricsOptions): Promise<MetricsServer> {
  const log = options.log.child({ component: 'metrics' });
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const meters = prometheus(registry, log);
  meters.read('gauge', 'infralet_build_info', 'Always 1; its label says which Infralet this is.', ['version'], () => [
    [{ version: options.version }, 1],
  ]);
  let scrape: Promise<string> | undefined;
  const text = async (): Promise<string> => {
    // Who asks while it is being read gets the same answer.
    scrape ??= registry.metrics().finally(() => {
      scrape = undefined;
    });
    return await scrape;
  };
  const server = createServer({ requestTimeout: REQUEST_MS, headersTimeout: REQUEST_MS }, (request, response) => {
    answer(request, response, registry.contentType, text).catch((error: unknown) => {
      log.warn('the figures could not be read', { reason: errorMessage(error) });
      response.writeHead(500).end();
    });
  });
  server.maxConnections = MAX_CONNECTIONS;
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen(options.port, options.address, resolve);
  try {
    await promise;
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `metrics cannot be served: ${errorMessage(error)}`, {
      hint: 'give metrics.address and metrics.port that are free on this host, or leave metrics.port out',
      cause: error,
    });
  }
  server.on('error', (error) => log.error('the metrics server failed', { error }));
  const url = urlOf(server.address());
  log.info('serving metrics', { url });
  return {
    meters,
    url,
    [Symbol.asyncDispose]: async () => {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeAllConnections();
      await closed.promise;
      registry.clear();
    },
  };
}

function urlOf(address: AddressInfo | string | null): string {
  if (address === null || typeof address === 'string') throw new InfraletError('INTERNAL', 'metrics have no address');
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `http://${host}:${address.port}/metrics`;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  contentType: string,
  text: () => Promise<string>,
): Promise<void> {
  request.resume();
  if (request.url?.split('?')[0] !== '/metrics') {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('see /metrics\n');
  } else if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { allow: 'GET, HEAD' }).end();
  } else {
    const body = request.method === 'HEAD' ? '' : await text();
    response.writeHead(200, { 'content-type': contentType, 'cache-control': 'no-store' }).end(body);
  }
}

function prometheus(registry: Registry, log: Logger): Meters {
  const registers = [registry];
  return {
    counter: (name, help, labels) => {
      const counter = new Counter({ name, help, labelNames: [...labels], registers });
      return (values, by = 1) => counter.inc(values, by);
    },
    histogram: (name, help, labels, buckets) => {
      const histogram = new Histogram({ name, help, labelNames: [...labels], buckets: [...buckets], registers });
      return (values, value) => histogram.observe(values, value);
    },
    read: (kind, name, help, labels, read) => {
      const labelNames = [...labels];
      const fill = async (put: (values: Labels, value: number) => void): Promise<void> => {
        let readings: Iterable<Reading> = [];
        try {
          readings = await read();
        } catch (error) {
          // The other figures are worth having all the same.
          log.warn('a figure could not be read', { figure: name, reason: errorMessage(error) });
        }
        for (const [values, value] of readings) put(values, value);
      };
      const common = { name, help, labelNames, registers: [] };
      registry.registerMetric(
        kind === 'gauge'
          ? new Gauge({
              ...common,
              async collect() {
                this.reset();
                await fill((values, value) => this.set(values, value));
              },
            })
          : new Counter({
              ...common,
              async collect() {
                this.reset();
                await fill((values, value) => this.inc(values, value));
              },
            }),
      );
    },
  };
}
