import { describe, expect, test } from 'vitest';
import { continuedHead } from '../../src/streaming/head.ts';
import { TokenTable } from '../../src/streaming/tokens.ts';

function table(options: { readonly ttlMs?: number; readonly most?: number } = {}) {
  const time = { now: 0 };
  const clock = { now: () => time.now, sleep: async () => undefined };
  return { time, tokens: new TokenTable({ clock, ttlMs: options.ttlMs ?? 1000, most: options.most ?? 10 }) };
}

const open = async () => Promise.reject(new Error('not in this test'));

describe('tokens', () => {
  test('hold for one use, by the right kind', () => {
    const { tokens } = table();
    const token = tokens.issue('exec', open);
    expect(token).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(tokens.take('attach', token)).toBeUndefined();
    expect(tokens.take('exec', token)).toBe(open);
    expect(tokens.take('exec', token)).toBeUndefined();
    expect(tokens.take('exec', '')).toBeUndefined();
    expect(tokens.take('__proto__', 'constructor')).toBeUndefined();
  });

  test('expire', () => {
    const { time, tokens } = table({ ttlMs: 1000 });
    const early = tokens.issue('exec', open);
    time.now = 600;
    const late = tokens.issue('exec', open);
    time.now = 1000;
    expect(tokens.take('exec', early)).toBeUndefined();
    expect(tokens.size).toBe(1);
    expect(tokens.take('exec', late)).toBe(open);
  });

  test('are limited in number; use and expiry make room', () => {
    const { time, tokens } = table({ most: 3, ttlMs: 1000 });
    const [first = ''] = [1, 2, 3].map(() => tokens.issue('exec', open));
    expect(() => tokens.issue('exec', open)).toThrow(expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }));
    tokens.take('exec', first);
    tokens.issue('exec', open);
    time.now = 1000;
    for (let n = 0; n < 3; n++) tokens.issue('exec', open);
    expect(tokens.size).toBe(3);
  });

  test('are all different', () => {
    const { tokens } = table({ most: 10_000 });
    expect(new Set(Array.from({ length: 10_000 }, () => tokens.issue('exec', open))).size).toBe(10_000);
  });
});

describe('the continued head', () => {
  const target = { path: '/exec/abc?x=1', host: '127.0.0.1:10010' };
  const head = (...rawHeaders: readonly string[]) =>
    continuedHead({ method: 'POST', rawHeaders }, target).split('\r\n');

  test('keeps method and headers, replaces path and host', () => {
    expect(
      head(
        'Host',
        'node:1',
        'Upgrade',
        'SPDY/3.1',
        'X-Stream-Protocol-Version',
        'v4.channel.k8s.io',
        'x-STREAM-protocol-version',
        'v3',
      ),
    ).toEqual([
      'POST /exec/abc?x=1 HTTP/1.1',
      'Host: 127.0.0.1:10010',
      'Upgrade: SPDY/3.1',
      'X-Stream-Protocol-Version: v4.channel.k8s.io',
      'x-STREAM-protocol-version: v3',
      '',
      '',
    ]);
  });

  test('adds an origin to WebSocket requests that have none', () => {
    expect(head('Upgrade', 'websocket')).toContain('Origin: http://127.0.0.1:10010');
    expect(head('Upgrade', 'WebSocket', 'origin', 'http://me')).toEqual([
      'POST /exec/abc?x=1 HTTP/1.1',
      'Host: 127.0.0.1:10010',
      'Upgrade: WebSocket',
      'origin: http://me',
      '',
      '',
    ]);
    expect(head('Upgrade', 'SPDY/3.1').join()).not.toContain('Origin');
  });

  test("keeps the cluster's credentials on the node", () => {
    const lines = head(
      ...['Authorization', 'Bearer abc', 'COOKIE', 'abc', 'Proxy-Authorization', 'abc'],
      ...['X-Remote-User', 'abc', 'Impersonate-User', 'abc'],
      ...['Sec-WebSocket-Protocol', 'v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.abc'],
      ...['Sec-WebSocket-Protocol', 'base64url.bearer.authorization.k8s.io.abc'],
      ...['User-Agent', 'kubectl', 'X-Empty', ''],
    );
    expect(lines.slice(2)).toEqual([
      'Sec-WebSocket-Protocol: v4.channel.k8s.io',
      'User-Agent: kubectl',
      'X-Empty:',
      '',
      '',
    ]);
  });

  test.each([
    ['/a b', 'h'],
    ['/a\r\nX: y', 'h'],
    ['relative', 'h'],
    ['/a', 'h\r\nX: y'],
    ['/a', ''],
  ])('refuses what a hostile guest might name: %j %j', (path, host) => {
    expect(() => continuedHead({ method: 'GET', rawHeaders: [] }, { path, host })).toThrow(
      expect.objectContaining({ code: 'UNAVAILABLE' }),
    );
  });
});
