/** The nearest known word to a mistyped one. */

/** Edits (insert, delete, replace, swap of neighbours) that make `a` into `b`. */
export function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let best = Math.min(
        (above[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (above[column - 1] ?? 0) + (same ? 0 : 1),
      );
      if (row > 1 && column > 1 && a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        best = Math.min(best, (before[column - 2] ?? 0) + 1);
      }
      current.push(best);
    }
    before = above;
    above = current;
  }
  return above[b.length] ?? 0;
}

/** The known word that `word` most likely means; undefined when none is near enough to be a help. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const wanted = normalise(word);
  let best: { readonly name: string; readonly distance: number } | undefined;
  for (const name of known) {
    const candidate = normalise(name);
    // A word that contains the other ("memory" for "minMemory") is near although many letters differ.
    const contained = wanted.length > 3 && (candidate.includes(wanted) || wanted.includes(candidate));
    const distance = contained ? 1 : editDistance(wanted, candidate);
    if (!best || distance < best.distance) best = { name, distance };
  }
  const limit = Math.max(1, Math.floor(wanted.length / 3));
  return best && best.distance <= limit ? best.name : undefined;
}

/** Case, dashes and underscores are the usual slips: "state-dir" means "stateDir". */
function normalise(word: string): string {
  return word.toLowerCase().replaceAll(/[-_]/g, '');
}
