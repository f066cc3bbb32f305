/** Conversions are done once per thing that is shown, and answers once per list. */

/** Wraps a conversion: the same view, which never changes, gives the same item. */
export function memo<View extends object, Item extends object>(convert: (view: View) => Item): (view: View) => Item {
  const items = new WeakMap<View, Item>();
  return (view) => {
    const known = items.get(view);
    if (known) return known;
    const item = convert(view);
    items.set(view, item);
    return item;
  };
}

/**
 * Answers of a function of a list and one word, kept until it is asked about another list: the same list gives the same
 * object, which is frozen to say so (see itemwise). The words must be few.
 */
export function kept<View, Answer extends object>(
  make: (views: readonly View[], word: string | undefined) => Answer,
): (views: readonly View[], word: string | undefined) => Answer {
  let list: readonly View[] | undefined;
  const answers = new Map<string | undefined, Answer>();
  return (views, word) => {
    if (views !== list) answers.clear();
    list = views;
    const known = answers.get(word);
    if (known !== undefined) return known;
    const answer = Object.freeze(make(views, word));
    answers.set(word, answer);
    return answer;
  };
}
