/** The guest image: built by `infralet image build`, which is not even started while nothing it is made of changed. */
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { capture, must } from './child.mjs';
import { CACHE, MAIN, NODE, ROOT, toolEnv } from './project.mjs';
import { SetupError, say, step } from './report.mjs';
import { digestOf, readStamp, writeStamp } from './stamp.mjs';

/** All that the image is made of, as far as it lies in this checkout. */
const INPUTS = [
  'config/guest',
  'proto',
  'src/agent',
  'src/base',
  'src/guest-image',
  'src/rpc',
  'src/telemetry',
  'package-lock.json',
];

/** @param {string} config path of the configuration file */
export async function buildGuestImage(config) {
  const digest = digestOf(ROOT, INPUTS);
  const text = existsSync(config) ? readFileSync(config, 'utf8') : '';
  const stamp = join(CACHE, 'guest-image.json');
  const known = parse(readStamp(stamp));
  if (known?.digest === digest && known.config === text && known.manifest === fingerprint(known.directory)) return;
  await checkConfig(config);
  const directory = await step('building the guest image (infralet image build)', async () => {
    const { stdout } = await must(
      'infralet image build',
      NODE,
      [MAIN, 'image', 'build', '--json', '--config', config],
      {
        cwd: ROOT,
        env: toolEnv(),
        onLine: (line) => {
          if (!line.startsWith('{')) say(`  ${line}`);
        },
        shown: true,
        fix: `look at the lines above; try again with: npm run infralet -- image build --config ${config}`,
      },
    );
    return String(JSON.parse(stdout.trim().split('\n').at(-1) ?? '{}').directory);
  });
  mkdirSync(CACHE, { recursive: true });
  writeStamp(stamp, JSON.stringify({ digest, config: text, directory, manifest: fingerprint(directory) }));
}

/**
 * A wrong configuration is told as such, before it shows as an image that cannot be built.
 * @param {string} config
 */
async function checkConfig(config) {
  const { code, stderr } = await capture(NODE, [MAIN, 'config', 'check', config], { cwd: ROOT, env: toolEnv() });
  if (code !== 0) throw new SetupError(stderr.trim().replace(/^infralet: /, ''), undefined, code);
}

/**
 * The image that the stamp speaks of may have been removed or replaced since.
 * @param {string} directory
 */
function fingerprint(directory) {
  try {
    const { size, mtimeMs, ino } = statSync(join(directory, 'manifest.json'));
    return `${size}-${mtimeMs}-${ino}`;
  } catch {
    return 'absent';
  }
}

/**
 * @param {string | undefined} text
 * @returns {{ digest: string, config: string, directory: string, manifest: string } | undefined}
 */
function parse(text) {
  try {
    const value = JSON.parse(text ?? '');
    return value.manifest === 'absent' ? undefined : value;
  } catch {
    return undefined;
  }
}
