/**
 * Lists are most of what a kubelet asks for (every second, all of them), and encoding is most of their cost. The
 * encoding of a repeated field is the encodings of its items one after the other: each item is encoded once and kept
 * as long as the item itself, and so is a whole answer, for as long as the same object is given.
 */
import { passingBytes } from '../base/passing-bytes.ts';

/** Between minor collections, bytes of lists: each answer is copied twice on its way out. */
const COLLECT_BYTES = 4 * 1024 * 1024;
const notePassed = passingBytes(COLLECT_BYTES);

/** The serializer of a response whose only field is the list `field`. Neither it nor its items may change once given. */
export function itemwise(
  serialize: (response: object) => Buffer,
  field: string,
): (response: Readonly<Record<string, unknown>>) => Buffer {
  const ofItems = new WeakMap<object, Buffer>();
  const ofResponses = new WeakMap<object, Buffer>();
  return (response) => {
    const known = ofResponses.get(response);
    if (known) {
      notePassed(known.length);
      return known;
    }
    const items = response[field];
    if (!Array.isArray(items)) return serialize(response);
    const whole = Buffer.concat(
      items.map((item: object) => {
        let encoding = ofItems.get(item);
        if (!encoding) {
          encoding = serialize({ [field]: [item] });
          ofItems.set(item, encoding);
        }
        return encoding;
      }),
    );
    ofResponses.set(response, whole);
    notePassed(2 * whole.length);
    return whole;
  };
}
