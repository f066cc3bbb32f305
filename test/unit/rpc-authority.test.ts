import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AuthorityFilter } from '../../src/rpc/authority-filter.ts';
import { rewriteAuthority } from '../../src/rpc/hpack.ts';
import { decodeHuffman } from '../../src/rpc/huffman.ts';

const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');

/** The first header block of grpc-go 1.33 dialling "/run/infralet/infralet.sock", recorded: Huffman-coded throughout. */
const GO_BLOCK = Buffer.from(
  '8386459962cb6a49a92afdc2bedb6a49a92ee2d9dcc42b1c4b620c7abf419362cb6a60d54b60e82a583552d83a0a95d072755f' +
    '8b1d75d0620d263d4c4d65647a8b9acac8b4c7602bb2caecff40027465864d833505b11f40899acac8b24d494f6a7f867df7c4f0036f',
  'hex',
);
const GO_VALUE = Buffer.from('9362cb6a60d54b60e82a583552d83a0a95d07275', 'hex');

const REWRITTEN = '.run.infralet.infralet.sock';

function frame(type: number, flags: number, stream: number, payload: Uint8Array): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

const plain = (text: string) => Buffer.concat([Buffer.of(text.length), Buffer.from(text, 'latin1')]);
const authority = (text: string) => Buffer.concat([Buffer.of(0x41), plain(text)]);
const filtered = (...chunks: readonly Buffer[]) => {
  const filter = new AuthorityFilter();
  return Buffer.concat(chunks.flatMap((chunk) => [...filter.push(chunk)]));
};
const goStream = (block: Buffer) => Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(0)), frame(1, 4, 1, block)]);

describe('Huffman code', () => {
  test('reads the examples of RFC 7541', () => {
    expect(decodeHuffman(Buffer.from('f1e3c2e5f23a6ba0ab90f4ff', 'hex'))).toBe('www.example.com');
    expect(decodeHuffman(Buffer.from('9d29ad171863c78f0b97c8e9ae82ae43d3', 'hex'))).toBe('https://www.example.com');
  });

  test('reads what grpc-go writes', () => {
    expect(decodeHuffman(GO_VALUE.subarray(1))).toBe('/run/infralet/infralet.sock');
  });

  test('refuses padding that is none', () => {
    expect(decodeHuffman(Buffer.of(0x00))).toBeUndefined();
    expect(decodeHuffman(Buffer.of(0xff))).toBeUndefined();
    expect(decodeHuffman(Buffer.of(0xff, 0xff, 0xff, 0xff))).toBeUndefined();
  });
});

describe('rewriting a header block', () => {
  test('replaces a Huffman-coded path by text of the same length and leaves the rest', () => {
    const expected = Buffer.from(
      GO_BLOCK.toString('hex').replace(GO_VALUE.toString('hex'), plain(REWRITTEN).toString('hex')),
      'hex',
    );
    expect(rewriteAuthority(GO_BLOCK)).toEqual(expected);
  });

  test.each([
    ['with indexing', Buffer.of(0x41)],
    ['without indexing', Buffer.of(0x01)],
    ['never indexed', Buffer.of(0x11)],
    ['spelled out', Buffer.concat([Buffer.of(0x40), plain(':authority')])],
  ])('a literal %s', (_name, prefix) => {
    const block = Buffer.concat([Buffer.of(0x83), prefix, plain('/run/x'), Buffer.of(0x86)]);
    expect(rewriteAuthority(block)).toEqual(Buffer.concat([Buffer.of(0x83), prefix, plain('.run.x'), Buffer.of(0x86)]));
  });

  test('every character that nghttp2 refuses', () => {
    expect(rewriteAuthority(authority('a b"#/<>?@\\^`{|}\x7f\xe9z'))).toEqual(authority(`a.b${'.'.repeat(15)}z`));
  });

  test('paths longer than a one-byte length', () => {
    const path = `/${'d'.repeat(300)}/x`;
    const length = (count: number) => Buffer.of(0x7f, ((count - 127) & 0x7f) | 0x80, (count - 127) >> 7);
    const block = (text: string) => Buffer.concat([Buffer.of(0x41), length(text.length), Buffer.from(text)]);
    expect(rewriteAuthority(block(path))).toEqual(block(path.replaceAll('/', '.')));
  });

  test('acceptable authorities, other headers and malformed blocks stay', () => {
    for (const fine of ['localhost', '127.0.0.1:80', '[::1]:80', '%2Frun%2Fx', 'a.b-c_d~e!']) {
      expect(rewriteAuthority(authority(fine))).toBeUndefined();
    }
    expect(rewriteAuthority(Buffer.concat([Buffer.of(0x44), plain('/path')]))).toBeUndefined();
    expect(rewriteAuthority(Buffer.of(0x41))).toBeUndefined();
    expect(rewriteAuthority(Buffer.of(0x41, 0x05, 0x2f))).toBeUndefined();
    expect(rewriteAuthority(Buffer.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff))).toBeUndefined();
  });

  test('any bytes: never throws', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        rewriteAuthority(Buffer.from(bytes));
      }),
    );
  });
});

describe('filtering a connection', () => {
  const expectedOf = (block: Buffer) => rewriteAuthority(block) ?? block;

  test('rewrites a recorded connection, however it is cut', () => {
    const data = frame(0, 0, 1, Buffer.from('DATA with a / and \x41\x01/'));
    const whole = Buffer.concat([goStream(GO_BLOCK), data, frame(1, 5, 3, Buffer.of(0x83, 0x86, 0xc2)), data]);
    const expected = Buffer.concat([
      goStream(expectedOf(GO_BLOCK)),
      data,
      frame(1, 5, 3, Buffer.of(0x83, 0x86, 0xc2)),
      data,
    ]);
    expect(filtered(whole)).toEqual(expected);
    fc.assert(
      fc.property(fc.array(fc.nat(whole.length), { maxLength: 12 }), (cuts) => {
        const edges = [0, ...cuts.sort((a, b) => a - b), whole.length];
        const chunks = edges.slice(1).map((edge, index) => whole.subarray(edges[index], edge));
        expect(filtered(...chunks)).toEqual(expected);
      }),
    );
    expect(filtered(...[...whole].map((byte) => Buffer.of(byte)))).toEqual(expected);
  });

  test('passes chunks on without a copy when there is nothing to do', () => {
    const filter = new AuthorityFilter();
    const chunk = goStream(authority('localhost'));
    const [first, ...more] = filter.push(chunk);
    expect(more).toEqual([]);
    expect(first?.buffer).toBe(chunk.buffer);
    expect(first).toEqual(chunk);
    const data = frame(0, 0, 1, Buffer.alloc(10_000, 7));
    expect(filter.push(data)[0]?.buffer).toBe(data.buffer);
  });

  test('drops padding, keeps priority and flags', () => {
    const block = authority('/run/x');
    const priority = Buffer.of(0, 0, 0, 5, 200);
    const padded = Buffer.concat([Buffer.of(3), priority, block, Buffer.alloc(3)]);
    const out = filtered(PREFACE, frame(1, 0x4 | 0x8 | 0x20 | 0x1, 7, padded));
    expect(out.subarray(PREFACE.length)).toEqual(
      frame(1, 0x4 | 0x20 | 0x1, 7, Buffer.concat([priority, authority('.run.x')])),
    );
  });

  test('joins CONTINUATION frames, and makes new ones where the block is long', () => {
    const block = authority('/run/x');
    const split = [
      frame(1, 0, 1, block.subarray(0, 3)),
      frame(9, 0, 1, block.subarray(3, 5)),
      frame(9, 4, 1, block.subarray(5)),
    ];
    expect(filtered(PREFACE, ...split).subarray(PREFACE.length)).toEqual(frame(1, 4, 1, authority('.run.x')));

    const length = 20_000;
    const big = Buffer.concat([
      block,
      Buffer.of(
        0x00,
        1,
        0x78,
        0x7f,
        ((length - 127) & 0x7f) | 0x80,
        ((length - 127) >> 7) | 0x80,
        (length - 127) >> 14,
      ),
      Buffer.alloc(length, 0x61),
    ]);
    const cut = [frame(1, 1, 1, big.subarray(0, 16_384)), frame(9, 4, 1, big.subarray(16_384))];
    const rewritten = expectedOf(big);
    expect(rewritten.length).toBe(big.length);
    expect(filtered(PREFACE, ...cut).subarray(PREFACE.length)).toEqual(
      Buffer.concat([frame(1, 1, 1, rewritten.subarray(0, 16_384)), frame(9, 4, 1, rewritten.subarray(16_384))]),
    );
  });

  test('leaves broken framing to the HTTP/2 session', () => {
    const odd = Buffer.concat([
      PREFACE,
      frame(1, 0, 1, authority('/x')),
      frame(0, 0, 1, Buffer.of(1)),
      frame(9, 4, 3, Buffer.of(2)),
    ]);
    expect(filtered(odd)).toEqual(odd);
    const overPadded = Buffer.concat([PREFACE, frame(1, 0xc, 1, Buffer.of(200, 0x41, 1, 0x2f))]);
    expect(filtered(overPadded)).toEqual(overPadded);
  });

  test('never holds back more than a header block may have', () => {
    const endless = [
      PREFACE,
      ...Array.from({ length: 40 }, (_, n) => frame(n === 0 ? 1 : 9, 0, 1, Buffer.alloc(16_384))),
    ];
    expect(filtered(...endless).length).toBeGreaterThan(256 * 1024);
  });
});
