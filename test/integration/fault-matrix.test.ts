/**
 * The daemon dies at every journalled step, before and after its effect, while the outside answers, fails, loses its answer
 * or throttles, with three seeds on three clouds. Afterwards every pod asked for exists exactly once and nothing else does;
 * docs/reliability.md says so with the very table that comes of it.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { CLOUDS } from '../faults/clouds.ts';
import { INCIDENTS, type IncidentResult } from '../faults/incidents.ts';
import { type CellResult, runIncidents, runMatrix, SEEDS } from '../faults/matrix.ts';
import { reliabilityPage } from '../faults/page.ts';
import { PAGE } from '../faults/write.ts';

describe('killed at any step, whatever the outside does', () => {
  const results: CellResult[] = [];
  const incidents: IncidentResult[] = [];

  test.each(CLOUDS.flatMap((cloud) => SEEDS.map((seed) => ({ cloud, seed }))))(
    '$cloud, seed $seed: every pod asked for is there once, and nothing else',
    async ({ cloud, seed }) => {
      const mine = await runMatrix(cloud, seed);
      results.push(...mine);
      expect(mine.length).toBeGreaterThan(150);
      expect(mine.flatMap(({ failure }) => failure ?? [])).toEqual([]);
    },
  );

  test.each(CLOUDS)('%s: what else happens to nodes, and what becomes of a pod', async (cloud) => {
    const mine = await runIncidents(cloud);
    incidents.push(...mine);
    expect(mine).toEqual(INCIDENTS.map(({ name, outcome }) => ({ name, outcome })));
  });

  test('docs/reliability.md has the tables that this has yielded', () => {
    const page = readFileSync(PAGE, 'utf8');
    expect(reliabilityPage(page, results, incidents), 'run: npm run reliability').toBe(page);
  });
});
