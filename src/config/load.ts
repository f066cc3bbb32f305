/** Finds, reads and compiles the configuration. */
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { hasErrno, InfraletError } from '../base/errors.ts';
import { formatProblem, parseConfig } from './parse.ts';
import type { Config } from './schema.ts';

/** Where an installed node keeps its configuration. */
const SYSTEM_CONFIG = '/etc/infralet/infralet.yaml';
/** Part of the program: what runs when nothing else is configured. */
export const DEFAULT_CONFIG = join(import.meta.dirname, '..', '..', 'config', 'infralet.yaml');

/**
 * The configuration in `path`; without one the system's file, or else the embedded default.
 * Throws INVALID_ARGUMENT listing every problem, NOT_FOUND when a named file does not exist.
 */
export async function loadConfig(path: string | undefined): Promise<Config> {
  if (path !== undefined) return await readConfig(path);
  try {
    return await readConfig(SYSTEM_CONFIG);
  } catch (error) {
    if (error instanceof InfraletError && error.code === 'NOT_FOUND') return await readConfig(DEFAULT_CONFIG);
    throw error;
  }
}

async function readConfig(path: string): Promise<Config> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const missing = hasErrno(error, 'ENOENT');
    throw new InfraletError(
      missing ? 'NOT_FOUND' : 'FAILED_PRECONDITION',
      missing ? `the configuration file ${path} does not exist` : `cannot read the configuration file ${path}`,
      { hint: `the embedded default is ${DEFAULT_CONFIG}`, cause: error },
    );
  }
  const parsed = parseConfig(text);
  if (!parsed.ok) {
    const list = parsed.problems.map((problem) => `\n  ${formatProblem(problem)}`).join('');
    throw new InfraletError('INVALID_ARGUMENT', `${path} has ${count(parsed.problems.length)}:${list}`, {
      hint: '`infralet config schema` prints every key with its unit, default and meaning',
    });
  }
  return resolveDefaults(parsed.config);
}

/** Fills in what depends on this host and on other settings. */
function resolveDefaults(config: Config): Config {
  return {
    ...config,
    node: config.node === '' ? hostname() : config.node,
    guestImageDir: config.guestImageDir === '' ? join(config.stateDir, 'guest') : config.guestImageDir,
  };
}

function count(problems: number): string {
  return problems === 1 ? 'a problem' : `${problems} problems`;
}
