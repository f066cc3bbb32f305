/** Reads Prometheus' text format over HTTP. */

/** Values by series: `name{a="b",c="d"}`, labels in alphabetical order. */
export async function scrape(url: string): Promise<ReadonlyMap<string, number>> {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: ${response.status}`);
  const values = new Map<string, number>();
  for (const line of (await response.text()).split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const [, name = '', labels = '', value = ''] = /^([a-z_0-9]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (name === '') throw new Error(`not a series: ${line}`);
    const sorted = (labels.match(/[a-z_]+="(?:[^"\\]|\\.)*"/g) ?? []).sort().join(',');
    values.set(sorted === '' ? name : `${name}{${sorted}}`, Number(value));
  }
  return values;
}
