/**
 * From a fresh checkout to a running daemon or a finished test run. Plain JavaScript for Node 20 without dependencies:
 * it runs before anything is installed. Usage: node main.mjs start|test|bench|setup [arguments].
 */
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { CHECKS, runChecks } from './checks.mjs';
import { foreground } from './child.mjs';
import { buildGuestImage } from './guest.mjs';
import { checkHost, installPackages, PACKAGES, TEST_PACKAGES } from './host.mjs';
import { generate, installModules } from './modules.mjs';
import { MAIN, NODE, ROOT, toolEnv } from './project.mjs';
import { SetupError, say } from './report.mjs';

const MODES = ['start', 'test', 'bench', 'setup'];

/**
 * @param {string} mode
 * @param {readonly string[]} args
 * @returns {Promise<number>} exit code
 */
async function main(mode, args) {
  if (!MODES.includes(mode)) throw new SetupError(`there is no mode ${mode}`, `choose of: ${MODES.join(' ')}`, 2);
  const options = parse(mode, args);
  const wrong = mode === 'test' ? options.rest.find((name) => !CHECKS.includes(name)) : undefined;
  if (wrong !== undefined) throw new SetupError(`there is no check ${wrong}`, `choose of: ${CHECKS.join(' ')}`, 2);
  checkHost(mode);
  await installPackages(Object.keys(mode === 'test' ? { ...PACKAGES, ...TEST_PACKAGES } : PACKAGES));
  await installModules();
  await generate();
  if (options.image) await buildGuestImage(options.config);
  switch (mode) {
    case 'start':
      return foreground(NODE, [MAIN, 'serve', '--config', options.config, ...(options.demo ? ['--demo'] : [])], {
        cwd: ROOT,
        env: toolEnv(),
      });
    case 'test':
      return runChecks(options.rest);
    case 'bench':
      return foreground(NODE, [join(ROOT, 'test', 'bench', 'main.ts'), ...options.rest], { cwd: ROOT, env: toolEnv() });
    default:
      say('everything is set up; next: npm start');
      return 0;
  }
}

/**
 * @param {string} mode
 * @param {readonly string[]} args
 */
function parse(mode, args) {
  const fallback = join(ROOT, 'config', 'infralet.yaml');
  if (mode === 'bench') return { config: fallback, demo: false, image: true, rest: [...args] };
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { config: { type: 'string' }, 'no-demo': { type: 'boolean', default: false } },
      allowPositionals: mode === 'test',
    });
    // Checks that start no machine need no guest image either: `npm test -- types lint unit`.
    const light = ['types', 'lint', 'dead-code', 'generated', 'unit', 'leaks'];
    return {
      config: values.config === undefined ? fallback : resolve(process.env['INIT_CWD'] ?? '.', values.config),
      demo: !values['no-demo'],
      image: positionals.length === 0 || positionals.some((name) => !light.includes(name)),
      rest: positionals,
    };
  } catch (error) {
    const usage = mode === 'test' ? 'npm test [-- CHECK…]' : `npm ${mode} [-- --config FILE] [--no-demo]`;
    throw new SetupError(error instanceof Error ? error.message : String(error), `usage: ${usage}`, 2);
  }
}

try {
  process.exitCode = await main(process.argv[2] ?? '', process.argv.slice(3));
} catch (error) {
  if (!(error instanceof SetupError)) throw error;
  say(`✘ ${error.message}`);
  if (error.fix !== undefined) say(`  → ${error.fix}`);
  process.exitCode = error.exitCode;
}
