/** Writes the tables of docs/reliability.md: runs the whole matrix, which takes about a minute. */
import { readFileSync, writeFileSync } from 'node:fs';
import { CLOUDS } from './clouds.ts';
import { type CellResult, runMatrix, SEEDS } from './matrix.ts';
import { reliabilityPage } from './page.ts';

export const PAGE = new URL('../../docs/reliability.md', import.meta.url);

if (import.meta.main) {
  const results: CellResult[] = [];
  for (const cloud of CLOUDS) {
    for (const seed of SEEDS) results.push(...(await runMatrix(cloud, seed)));
  }
  writeFileSync(PAGE, reliabilityPage(readFileSync(PAGE, 'utf8'), results));
  const failed = results.flatMap(({ failure }) => failure ?? []);
  process.stdout.write(
    `${results.length} runs, ${failed.length} failed\n${failed.map((each) => `${each}\n`).join('')}`,
  );
  process.exitCode = failed.length === 0 ? 0 : 1;
}
