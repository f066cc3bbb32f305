/** What the end-to-end test files share: one template for those of a worker, a boot less for each of them; and the clean-up. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { removeSharedLeftovers } from './host-leftovers.ts';

const VARIABLE = 'INFRALET_TEST_TEMPLATES';

/** Run by vitest before the first file of the project. */
export async function setup(): Promise<void> {
  process.env[VARIABLE] = await mkdtemp(join(tmpdir(), 'infralet-templates-'));
}

/** Run by vitest after the last one. */
export async function teardown(): Promise<void> {
  await rm(process.env[VARIABLE] ?? '', { recursive: true, force: true });
  await removeSharedLeftovers(AbortSignal.timeout(20_000));
}

/** This worker's directory; empty outside of the end-to-end tests: each daemon has its own. */
export function sharedTemplates(): string {
  const directory = process.env[VARIABLE] ?? '';
  // Two daemons at once would build the same template twice and remove what the other one still wants.
  return directory === '' ? '' : join(directory, process.env['VITEST_POOL_ID'] ?? '1');
}
