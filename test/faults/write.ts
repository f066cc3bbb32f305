/** Writes the tables of docs/reliability.md: runs the whole matrix, which takes about a minute. */
import { readFileSync, writeFileSync } from 'node:fs';
import { CLOUDS } from './clouds.ts';
import type { IncidentResult } from './incidents.ts';
import { type CellResult, runIncidents, runMatrix, SEEDS } from './matrix.ts';
import { reliabilityPage } from './page.ts';

export const PAGE = new URL('../../docs/reliability.md', import.meta.url);

if (import.meta.main) {
  const results: CellResult[] = [];
  const incidents: IncidentResult[] = [];
  for (const cloud of CLOUDS) {
    incidents.push(...(await runIncidents(cloud)));
    for (const seed of SEEDS) results.push(...(await runMatrix(cloud, seed)));
  }
  writeFileSync(PAGE, reliabilityPage(readFileSync(PAGE, 'utf8'), results, incidents));
  const failed = results.flatMap(({ failure }) => failure ?? []);
  failed.push(...incidents.flatMap(({ name, outcome }) => (outcome.startsWith('✗') ? `${name}: ${outcome}` : [])));
  process.stdout.write(
    `${results.length} runs, ${failed.length} failed\n${failed.map((each) => `${each}\n`).join('')}`,
  );
  process.exitCode = failed.length === 0 ? 0 : 1;
}
