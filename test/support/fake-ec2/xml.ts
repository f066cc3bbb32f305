/** Answers as EC2 words them: lists are `<item>`s, everything else an element. */

export type Xml = string | number | boolean | undefined | readonly Xml[] | { readonly [name: string]: Xml };

export function toXml(value: Xml): string {
  if (value === undefined) return '';
  if (Array.isArray(value)) return value.map((item: Xml) => `<item>${toXml(item)}</item>`).join('');
  if (typeof value === 'object') {
    return Object.entries(value)
      .flatMap(([name, inner]: [string, Xml]) => (inner === undefined ? [] : [`<${name}>${toXml(inner)}</${name}>`]))
      .join('');
  }
  return String(value).replace(/[<>&"]/g, (char) => `&#${char.charCodeAt(0)};`);
}
