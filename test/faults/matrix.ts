/** Runs the fault matrix, cell by cell. */
import { errorMessage } from '../../src/base/errors.ts';
import type { CloudName } from './clouds.ts';
import { INCIDENTS, type IncidentResult } from './incidents.ts';
import { ANSWERS, type Answer } from './outside.ts';
import { ROWS, type Row } from './rows.ts';
import { Site } from './site.ts';

export const SEEDS = [0, 1, 2] as const;
export const WHENS = ['before', 'after'] as const;

/** What becomes of the pod in each incident, at one cloud. */
export async function runIncidents(cloud: CloudName): Promise<readonly IncidentResult[]> {
  let site = await Site.open(cloud, LAGS[1], 0);
  const results: IncidentResult[] = [];
  for (const incident of INCIDENTS) {
    const outcome = await site.suffer(incident).catch((error: unknown) => `✗ ${errorMessage(error)}`);
    results.push({ name: incident.name, outcome });
    if (outcome !== incident.outcome) site = await Site.open(cloud, LAGS[1], 0);
  }
  await site[Symbol.asyncDispose]();
  return results;
}

/** How long a new machine is missing from the cloud's lists, by seed; milliseconds. */
const LAGS = [0, 3000, 12_000] as const;

export interface CellResult {
  readonly row: Row;
  readonly answer: Answer;
  readonly when: (typeof WHENS)[number];
  /** Undefined: all is as it should be. */
  readonly failure: string | undefined;
}

/** All cells for one cloud and seed. */
export async function runMatrix(cloud: CloudName, seed: (typeof SEEDS)[number]): Promise<readonly CellResult[]> {
  const rows = ROWS.filter(({ clouds }) => clouds === undefined || clouds.includes(cloud));
  const open = async (pool: number): Promise<Site> => await Site.open(cloud, LAGS[seed], pool);
  const results: CellResult[] = [];
  for (const pool of [0, 1]) {
    let site = await open(pool);
    for (const row of rows.filter(({ wish }) => (wish === 'claim') === pool > 0)) {
      for (const answer of Object.keys(ANSWERS) as Answer[]) {
        for (const when of WHENS) {
          const failure = await site.run({ row, answer, when, seed }).then(() => undefined, errorMessage);
          results.push({ row, answer, when, failure });
          // What went wrong must not be held against the next cell.
          if (failure !== undefined) site = await open(pool);
        }
      }
    }
    await site[Symbol.asyncDispose]();
  }
  return results;
}
