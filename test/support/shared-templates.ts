/** One template for all end-to-end test files: a boot less for each of them. Gone with the test run. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const VARIABLE = 'INFRALET_TEST_TEMPLATES';

/** Run by vitest before the first file of the project. */
export async function setup(): Promise<void> {
  process.env[VARIABLE] = await mkdtemp(join(tmpdir(), 'infralet-templates-'));
}

/** Run by vitest after the last one. */
export async function teardown(): Promise<void> {
  await rm(sharedTemplates(), { recursive: true, force: true });
}

/** The directory of this run; empty outside of the end-to-end tests: each daemon has its own. */
export function sharedTemplates(): string {
  return process.env[VARIABLE] ?? '';
}
