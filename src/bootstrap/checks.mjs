/** `npm test`: every check of the project one after the other, with the sum at the end. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { capture, foreground } from './child.mjs';
import { staleGenerated } from './modules.mjs';
import { CACHE, MODULES, NODE, ROOT, toolEnv } from './project.mjs';
import { elapsed, SetupError, say } from './report.mjs';

/** @typedef {{ passed: number, failed: number }} Sum */

/** Programs that must end with exit code 0. */
const STATIC = {
  types: [['tsc', '-p', '.']],
  lint: [
    ['biome', 'check', '.'],
    ['oxlint', '--type-aware', '--deny-warnings'],
  ],
  'dead-code': [['knip']],
};

const PROJECTS = ['unit', 'integration', 'conformance', 'e2e'];

/** Names that `npm test -- NAME…` takes; without one everything runs. */
export const CHECKS = [...Object.keys(STATIC), 'generated', ...PROJECTS, 'leaks'];

/**
 * Runs the checks and prints "N passed, N failed" on a line of its own.
 * @param {readonly string[]} only names out of CHECKS
 * @returns {Promise<number>} exit code
 */
export async function runChecks(only) {
  const wanted = only.length === 0 ? CHECKS : CHECKS.filter((name) => only.includes(name));
  mkdirSync(CACHE, { recursive: true });
  const scratch = mkdtempSync(join(tmpdir(), 'infralet-test-'));
  const marker = `infralet-test-${process.pid}-${Date.now()}`;
  // Everything a test makes in the file system goes to one place, everything it starts carries the marker:
  // both are looked at when the tests have ended.
  const env = { ...toolEnv(), TMPDIR: scratch, INFRALET_TEST_RUN: marker };
  const before = join(CACHE, 'leaks-before.json');
  /** @type {string[]} */
  const failures = [];
  /** @type {Sum} */
  const sum = { passed: 0, failed: 0 };
  try {
    if (wanted.includes('leaks')) await snapshot(before, env);
    for (const name of wanted) {
      const begin = elapsed();
      say(`${name} …`);
      const result = await check(name, env, before, scratch);
      sum.passed += result.passed;
      sum.failed += result.failed;
      if (result.failed > 0) failures.push(name);
      say(`${name}: ${result.failed > 0 ? 'FAILED' : 'ok'} in ${(elapsed() - begin).toFixed(1)} s`);
    }
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  say(failures.length === 0 ? 'everything is in order' : `failed: ${failures.join(', ')}`);
  process.stdout.write(`${sum.passed} passed, ${sum.failed} failed\n`);
  return sum.failed === 0 ? 0 : 1;
}

/**
 * @param {string} name
 * @param {NodeJS.ProcessEnv} env
 * @param {string} before
 * @param {string} scratch
 * @returns {Promise<Sum>}
 */
async function check(name, env, before, scratch) {
  if (name === 'generated') return generated();
  if (name === 'leaks') return leaks(before, env, scratch);
  if (PROJECTS.includes(name)) return tests(name, env);
  for (const [file = '', ...args] of STATIC[/** @type {keyof typeof STATIC} */ (name)]) {
    const code = await foreground(join(MODULES, '.bin', file), args, { cwd: ROOT, env });
    if (code !== 0) return { passed: 0, failed: 1 };
  }
  return { passed: 0, failed: 0 };
}

async function generated() {
  const difference = await staleGenerated();
  if (difference !== undefined) say(`  ${difference}`);
  return { passed: 0, failed: difference === undefined ? 0 : 1 };
}

/**
 * One vitest project; its numbers come from the JSON report.
 * @param {string} project
 * @param {NodeJS.ProcessEnv} env
 */
async function tests(project, env) {
  const report = join(CACHE, `test-${project}.json`);
  rmSync(report, { force: true });
  const code = await foreground(
    join(MODULES, '.bin', 'vitest'),
    ['run', '--project', project, '--reporter=default', '--reporter=json', `--outputFile.json=${report}`],
    { cwd: ROOT, env },
  );
  const sum = existsSync(report) ? countTests(JSON.parse(readFileSync(report, 'utf8'))) : { passed: 0, failed: 0 };
  // A run that ended badly without a failed test (an unhandled rejection, a crash) is a failure all the same.
  return code !== 0 && sum.failed === 0 ? { ...sum, failed: 1 } : sum;
}

/**
 * @param {{ numPassedTests: number, numFailedTests: number,
 *   testResults: readonly { status: string, assertionResults: readonly { status: string }[] }[] }} report
 * @returns {Sum}
 */
export function countTests(report) {
  // A file that cannot even be loaded has no tests to count; it counts as one failure itself.
  const broken = report.testResults.filter(
    ({ status, assertionResults }) =>
      status === 'failed' && !assertionResults.some((assertion) => assertion.status === 'failed'),
  );
  return { passed: report.numPassedTests, failed: report.numFailedTests + broken.length };
}

/**
 * @param {string} file
 * @param {NodeJS.ProcessEnv} env
 */
async function snapshot(file, env) {
  const { code, stdout, stderr } = await capture(NODE, ['test/support/leaks.ts', 'snapshot'], { cwd: ROOT, env });
  if (code !== 0) throw new SetupError(`cannot look at this host before the tests:\n${stderr}`);
  writeFileSync(file, stdout);
}

/**
 * @param {string} before
 * @param {NodeJS.ProcessEnv} env
 * @param {string} scratch
 */
async function leaks(before, env, scratch) {
  const { code, stdout, stderr } = await capture(NODE, ['test/support/leaks.ts', 'check', before], { cwd: ROOT, env });
  const left = readdirSync(scratch).map((name) => `file ${join(scratch, name)}`);
  for (const line of [...stdout.split('\n'), ...stderr.split('\n'), ...left])
    if (line !== '') say(`  left behind: ${line}`);
  return { passed: 0, failed: code === 0 && left.length === 0 ? 0 : 1 };
}
