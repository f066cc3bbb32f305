/**
 * From a fresh checkout to a running daemon or a finished test run. Plain JavaScript for Node 20 without dependencies:
 * it runs before anything is installed. Usage: node main.mjs start|test|bench|setup [arguments].
 */
import { existsSync } from 'node:fs';
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

/** Checks that need nothing but npm's modules. */
const LIGHT = ['types', 'lint', 'dead-code', 'generated', 'unit'];

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
  if (!existsSync(options.config))
    throw new SetupError(`the configuration file ${options.config} does not exist`, 'look at the path after --config');
  checkHost(mode, options.host);
  if (options.host) await installPackages(Object.keys(mode === 'test' ? { ...PACKAGES, ...TEST_PACKAGES } : PACKAGES));
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
  if (mode === 'bench') return { config: fallback, demo: false, host: true, image: true, rest: [...args] };
  try {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: { config: { type: 'string' }, 'no-demo': { type: 'boolean', default: false } },
      allowPositionals: mode === 'test',
    });
    /** @param {readonly string[]} names checks that need less than all; without a name all run */
    const beyond = (names) => positionals.length === 0 || positionals.some((name) => !names.includes(name));
    return {
      config: values.config === undefined ? fallback : resolve(process.env['INIT_CWD'] ?? '.', values.config),
      demo: !values['no-demo'],
      // `npm test -- types lint unit` needs neither root nor programs of the host.
      host: beyond(LIGHT),
      image: beyond([...LIGHT, 'leaks']),
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
