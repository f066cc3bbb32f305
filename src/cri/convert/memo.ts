/** One converted item per thing, made anew when one of its changing parts changes. */

/**
 * Wraps a conversion. `key` is an object that lives as long as the thing itself, `parts` is all that may change in it,
 * or that tells it from another thing with the same key.
 */
export function memo<View, Item>(
  key: (view: View) => object,
  parts: (view: View) => string,
  convert: (view: View) => Item,
): (view: View) => Item {
  const items = new WeakMap<object, { readonly parts: string; readonly item: Item }>();
  return (view) => {
    const now = parts(view);
    const known = items.get(key(view));
    if (known?.parts === now) return known.item;
    const item = convert(view);
    items.set(key(view), { parts: now, item });
    return item;
  };
}

/**
 * Answers of a function of a list and one word, kept as long as the list itself: the same list gives the same object,
 * whose encoding is kept in turn (see itemwise). The words must be few.
 */
export function kept<View, Answer>(
  make: (views: readonly View[], word: string | undefined) => Answer,
): (views: readonly View[], word: string | undefined) => Answer {
  const byList = new WeakMap<readonly View[], Map<string | undefined, Answer>>();
  return (views, word) => {
    const answers = byList.get(views) ?? new Map<string | undefined, Answer>();
    byList.set(views, answers);
    const known = answers.get(word);
    if (known !== undefined) return known;
    const answer = make(views, word);
    answers.set(word, answer);
    return answer;
  };
}
