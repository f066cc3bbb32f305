/**
 * Lists are most of what a kubelet asks for (every second, all of them), and encoding is most of their cost. The
 * encoding of a repeated field is the encodings of its items one after the other: each item is encoded once and kept
 * as long as the item itself.
 */

/** The serializer of a response whose only field is the list `field`. Items must not change once they were given. */
export function itemwise(
  serialize: (response: object) => Buffer,
  field: string,
): (response: Readonly<Record<string, unknown>>) => Buffer {
  const encodings = new WeakMap<object, Buffer>();
  return (response) => {
    const items = response[field];
    if (!Array.isArray(items)) return serialize(response);
    return Buffer.concat(
      items.map((item: object) => {
        let encoding = encodings.get(item);
        if (!encoding) {
          encoding = serialize({ [field]: [item] });
          encodings.set(item, encoding);
        }
        return encoding;
      }),
    );
  };
}
