import { constants, createInflate } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { SPDY_DICTIONARY } from '../../src/streaming/spdy/dictionary.ts';
import { dataHead, FrameReader, goAway, ping, rstStream, synStream } from '../../src/streaming/spdy/frames.ts';
import { HeaderCompressor } from '../../src/streaming/spdy/headers.ts';

type Seen = readonly (string | number | boolean)[];

/** Reads bytes cut at the given places; pieces of one stream's data that follow each other are joined. */
function read(bytes: Buffer, cuts: readonly number[] = []): Seen[] {
  const seen: Seen[] = [];
  const reader = new FrameReader({
    reply: (stream) => seen.push(['reply', stream]),
    data: (stream, piece) => {
      const last = seen.at(-1);
      if (last?.[0] === 'data' && last[1] === stream)
        seen[seen.length - 1] = ['data', stream, `${last[2]}${piece.toString('hex')}`];
      else seen.push(['data', stream, piece.toString('hex')]);
    },
    end: (stream, reset) => seen.push(['end', stream, reset]),
    ping: (id) => seen.push(['ping', id]),
    goAway: () => seen.push(['goAway']),
  });
  const places = [0, ...[...cuts].sort((a, b) => a - b), bytes.length];
  for (const [index, from] of places.slice(0, -1).entries()) reader.push(bytes.subarray(from, places[index + 1]));
  return seen;
}

const streamId = fc.integer({ min: 1, max: 0x7fffffff });
const control = (type: number, flags: number, body: Uint8Array): Buffer => {
  const head = Buffer.from([0x80, 3, 0, type, flags, 0, 0, body.length]);
  return Buffer.concat([head, body]);
};
const word = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

/** A frame's bytes, and what a reader makes of it. */
const frame: fc.Arbitrary<readonly [Buffer, readonly Seen[]]> = fc.oneof(
  fc.tuple(streamId, fc.uint8Array({ maxLength: 300 }), fc.boolean()).map(([id, bytes, fin]) => {
    const data: Seen[] = bytes.length > 0 ? [['data', id, Buffer.from(bytes).toString('hex')]] : [];
    const end: Seen[] = fin ? [['end', id, false]] : [];
    return [Buffer.concat([dataHead(id, bytes.length, fin), bytes]), [...data, ...end]] as const;
  }),
  fc.tuple(streamId, fc.uint8Array({ maxLength: 200 }), fc.boolean()).map(([id, headers, fin]) => {
    const end: Seen[] = fin ? [['end', id, false]] : [];
    return [control(2, fin ? 1 : 0, Buffer.concat([word(id), headers])), [['reply', id], ...end]] as const;
  }),
  streamId.map((id) => [rstStream(id, 5), [['end', id, true]]] as const),
  fc.integer({ min: 0, max: 0xffffffff }).map((id) => [ping(id), [['ping', id]]] as const),
  fc.constant([goAway(), [['goAway']]] as const),
  // SETTINGS, WINDOW_UPDATE, and what nobody knows; a stream that the other side opens is not ours either.
  fc
    .tuple(fc.constantFrom(1, 4, 9, 77), fc.uint8Array({ maxLength: 40 }))
    .map(([type, body]) => [control(type, 0, body), []] as const),
);

/** Joins like `read` does: data of one stream in several frames without an end between them. */
function joined(parts: readonly Seen[]): Seen[] {
  const all: Seen[] = [];
  for (const part of parts) {
    const last = all.at(-1);
    if (part[0] === 'data' && last?.[0] === 'data' && last[1] === part[1]) {
      all[all.length - 1] = ['data', part[1] ?? 0, `${last[2]}${part[2]}`];
    } else all.push(part);
  }
  return all;
}

describe('frames', () => {
  test('are read the same however the bytes are cut', () => {
    fc.assert(
      fc.property(fc.array(frame, { maxLength: 12 }), fc.array(fc.nat(4000), { maxLength: 30 }), (frames, cuts) => {
        const bytes = Buffer.concat(frames.map(([part]) => part));
        const wanted = joined(frames.flatMap(([, events]) => events));
        expect(read(bytes)).toEqual(wanted);
        expect(
          read(
            bytes,
            cuts.filter((cut) => cut <= bytes.length),
          ),
        ).toEqual(wanted);
        expect(read(bytes, Array.from(bytes.keys()))).toEqual(wanted);
      }),
    );
  });

  test('are written as the protocol has them', () => {
    expect(synStream(5, Buffer.from('ab')).toString('hex')).toBe('800300010000000c000000050000000000006162');
    expect(rstStream(7, 5).toString('hex')).toBe('80030003000000080000000700000005');
    expect(ping(2).toString('hex')).toBe('800300060000000400000002');
    expect(goAway().toString('hex')).toBe('80030007000000080000000000000000');
    expect(dataHead(3, 65_536, true).toString('hex')).toBe('0000000301010000');
  });

  test('that are none, or lack their body, are refused', () => {
    expect(() => read(Buffer.from('8002000600000000', 'hex'))).toThrow('no SPDY/3 frame');
    for (const type of [2, 3, 6, 8]) expect(() => read(control(type, 0, Buffer.alloc(3)))).toThrow('without its body');
  });
});

describe('header blocks', () => {
  test('the dictionary is the one that zlib knows as e3c6a7c2', async () => {
    using compressor = new HeaderCompressor();
    expect(SPDY_DICTIONARY.length).toBe(1423);
    expect((await compressor.compress({ streamtype: 'error' })).subarray(0, 6).toString('hex')).toMatch(
      /^78..e3c6a7c2$/,
    );
  });

  test('blocks of one connection share a stream, and each can be read when it arrives', async () => {
    const name = fc.stringMatching(/^[a-z-]{1,20}$/);
    const headers = fc.dictionary(name, fc.string({ unit: 'grapheme', maxLength: 50 }), { noNullPrototype: true });
    await fc.assert(
      fc.asyncProperty(fc.array(headers, { minLength: 1, maxLength: 6 }), async (blocks) => {
        using compressor = new HeaderCompressor();
        const inflate = createInflate({ dictionary: SPDY_DICTIONARY, finishFlush: constants.Z_SYNC_FLUSH });
        for (const block of blocks) {
          const { promise, resolve } = Promise.withResolvers<void>();
          inflate.write(await compressor.compress(block), () => resolve());
          await promise;
          const plain: Buffer = inflate.read();
          expect(plain.readUInt32BE(0)).toBe(Object.keys(block).length);
          const texts: string[] = [];
          for (let at = 4; at < plain.length; ) {
            const end = at + 4 + plain.readUInt32BE(at);
            texts.push(plain.subarray(at + 4, end).toString());
            at = end;
          }
          expect(texts).toEqual(Object.entries(block).flat());
        }
        inflate.destroy();
      }),
      { numRuns: 50 },
    );
  });
});
