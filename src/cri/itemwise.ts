/**
 * Lists are most of what a kubelet asks for (every second, all of them), and encoding is most of their cost. The
 * encoding of a repeated field is the encodings of its items one after the other: each item is encoded once and kept
 * as long as the item itself. So is the whole of an answer that is given again.
 */
import { passingBytes } from '../base/passing-bytes.ts';

/** Between minor collections, bytes of lists: each answer is copied twice on its way out. */
const COLLECT_BYTES = 4 * 1024 * 1024;
const notePassed = passingBytes(COLLECT_BYTES);

/** Frozen answers whose encodings are kept: all, and one per state that somebody asks for. */
const MOST_KEPT = 4;

interface Kept {
  readonly response: object;
  encoding: Buffer | undefined;
}

/**
 * The serializer of a response whose only field is the list `field`. Items must not change once given; a response that
 * is frozen is one that may be given again. Serializers of lists of the same items under the same field number may share
 * `ofItems`; null: encodings are not kept, as of items that nobody gives twice.
 */
export function itemwise(
  serialize: (response: object) => Buffer,
  field: string,
  ofItems: WeakMap<object, Buffer> | null = new WeakMap<object, Buffer>(),
  encodeItem: (item: object) => Buffer = (item) => serialize({ [field]: [item] }),
): (response: Readonly<Record<string, unknown>>) => Buffer {
  const join = (items: readonly object[]): Buffer =>
    Buffer.concat(
      items.map((item) => {
        let encoding = ofItems?.get(item);
        if (!encoding) {
          encoding = encodeItem(item);
          ofItems?.set(item, encoding);
        }
        return encoding;
      }),
    );
  let kept: readonly Kept[] = [];

  return (response) => {
    const items = response[field];
    if (!Array.isArray(items)) return serialize(response);
    const known = kept.find((each) => each.response === response);
    const encoding = known?.encoding ?? join(items);
    notePassed(2 * encoding.length);
    // Kept from the second time on: what is given once only is garbage that costs little to collect.
    if (known) known.encoding = encoding;
    else if (Object.isFrozen(response)) kept = [{ response, encoding: undefined }, ...kept.slice(0, MOST_KEPT - 1)];
    return encoding;
  };
}
