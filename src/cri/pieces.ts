/** Lists in pieces for RPCs that stream them: each piece fits into a message, whatever its items hold. */

/** Small beside every client's limit (4 MiB by default), so that no piece is too large by its last item. */
const PIECE_BYTES = 1024 * 1024;
/** For numbers, ids and the frame of an item. */
const ITEM_BYTES = 1024;
/** Bytes of UTF-8 for one unit of a JavaScript string, at most. */
const BYTES_PER_UNIT = 3;

/** At least one piece, an empty one for an empty list: an answer, not silence. `weigh` gives bytes, at least. */
export function* pieces<Item>(items: readonly Item[], weigh: (item: Item) => number): Generator<Item[]> {
  let piece: Item[] = [];
  let bytes = 0;
  for (const item of items) {
    const more = ITEM_BYTES + weigh(item);
    if (piece.length > 0 && bytes + more > PIECE_BYTES) {
      yield piece;
      piece = [];
      bytes = 0;
    }
    piece.push(item);
    bytes += more;
  }
  yield piece;
}

/** Bytes that texts take at most. */
export function weight(texts: readonly string[]): number {
  return texts.reduce((sum, text) => sum + BYTES_PER_UNIT * text.length, 0);
}

interface Marked {
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Of a container or sandbox in a list: labels and annotations are what can be large in it. */
export function listedWeight({ labels = {}, annotations = {} }: Marked): number {
  return weight([...Object.entries(labels), ...Object.entries(annotations)].flat());
}
