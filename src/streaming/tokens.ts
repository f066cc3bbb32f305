/** Single-use keys of streaming URLs. Whoever has one may use it once, soon; that is all the access control there is. */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { InfraletError } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';

export const STREAM_KINDS = ['exec', 'attach', 'portforward'] as const;
export type StreamKind = (typeof STREAM_KINDS)[number];

export function isStreamKind(text: string): text is StreamKind {
  return STREAM_KINDS.some((kind) => kind === text);
}

/** What an exec or attach session consists of. */
export interface SessionStreams {
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

/** The other end of a session: a connection to a streaming server, and the request that continues the session there. */
export interface StreamTarget {
  readonly socket: Duplex;
  /** Path and query. */
  readonly path: string;
  readonly host: string;
  /** For exec and attach. */
  readonly streams?: SessionStreams;
}

export type OpenStream = (signal: AbortSignal) => Promise<StreamTarget>;

export interface StreamingUrls {
  /**
   * A URL that opens `open`'s target once, within `streaming.tokenTtl`. Throws RESOURCE_EXHAUSTED when too many are
   * outstanding.
   */
  issue(kind: StreamKind, open: OpenStream): string;
}

interface Grant {
  readonly kind: StreamKind;
  readonly open: OpenStream;
  /** By the clock, milliseconds. */
  readonly expires: number;
}

export class TokenTable {
  /** In order of issue, which is also the order of expiry. */
  readonly #grants = new Map<string, Grant>();
  readonly #clock: Clock;
  readonly #ttlMs: number;
  readonly #most: number;

  constructor(options: { readonly clock: Clock; readonly ttlMs: number; readonly most: number }) {
    this.#clock = options.clock;
    this.#ttlMs = options.ttlMs;
    this.#most = options.most;
  }

  issue(kind: StreamKind, open: OpenStream): string {
    this.#dropExpired();
    if (this.#grants.size >= this.#most) {
      throw new InfraletError('RESOURCE_EXHAUSTED', `${this.#most} streaming URLs wait for their use`, {
        hint: `each expires after ${this.#ttlMs} ms; streaming.maxTokens is the limit`,
      });
    }
    const token = randomBytes(32).toString('base64url');
    this.#grants.set(token, { kind, open, expires: this.#clock.now() + this.#ttlMs });
    return token;
  }

  /** Uses a token up; undefined when it is unknown, used, expired or for another kind. */
  take(kind: string, token: string): OpenStream | undefined {
    this.#dropExpired();
    const grant = this.#grants.get(token);
    if (grant?.kind !== kind) return undefined;
    this.#grants.delete(token);
    return grant.open;
  }

  get size(): number {
    return this.#grants.size;
  }

  clear(): void {
    this.#grants.clear();
  }

  #dropExpired(): void {
    const now = this.#clock.now();
    for (const [token, grant] of this.#grants) {
      if (grant.expires > now) break;
      this.#grants.delete(token);
    }
  }
}
