/** The query form of EC2's API: flat names such as `Filter.1.Value.2`, read as a tree. */

export interface Params {
  text(name: string): string | undefined;
  /** Elements of a numbered list, in order. */
  list(name: string): readonly Params[];
  /** A numbered list of plain values. */
  values(name: string): readonly string[];
  /** Everything as it came. */
  all(): Readonly<Record<string, string>>;
}

export function parseParams(body: string): Params {
  return over([...new URLSearchParams(body)]);
}

function over(entries: readonly (readonly [string, string])[]): Params {
  const below = (prefix: string): readonly (readonly [string, string])[] =>
    entries.flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value] as const] : []));
  const numbers = (name: string): readonly number[] =>
    [...new Set(below(`${name}.`).map(([key]) => Number(key.split('.')[0])))].sort((a, b) => a - b);
  const text = (name: string): string | undefined => entries.find(([key]) => key === name)?.[1];
  return {
    text,
    list: (name) => numbers(name).map((index) => over(below(`${name}.${index}.`))),
    values: (name) => numbers(name).flatMap((index) => text(`${name}.${index}`) ?? []),
    all: () => Object.fromEntries(entries),
  };
}
