/** Debian's moto with the Python it needs, in a tree to change root into: made once per list of packages and kept. */
import { mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { errorMessage, InfraletError } from '../../../src/base/errors.ts';
import { exists } from '../../../src/base/files.ts';
import { run } from '../../../src/base/process.ts';
import { digestParts } from '../../../src/guest-image/digest.ts';
import { unpackPackages } from '../../../src/guest-image/packages.ts';
import { staging } from '../../../src/guest-image/publish.ts';
import { PROJECT_ROOT, RECIPE_DIR, readRecipe } from '../../../src/guest-image/recipe.ts';

const CACHE = join(PROJECT_ROOT, '.cache', 'moto');
const PACKAGES = ['ca-certificates', 'python3-flask-cors', 'python3-moto'] as const;

/** What the server imports before its first answer about machines; the tree keeps it compiled. */
const WARM_UP = 'import moto.server, moto.ec2.responses, moto.moto_api._internal.urls';

let tree: Promise<string> | undefined;

/** Directory of the tree. Takes half a minute when there is none yet. */
export async function motoTree(signal: AbortSignal): Promise<string> {
  tree ??= find(signal);
  return await tree;
}

async function find(signal: AbortSignal): Promise<string> {
  const recipe = { ...(await readRecipe(RECIPE_DIR)), packages: [...PACKAGES] };
  // How the tree is made counts, too.
  const name = digestParts({ recipe: JSON.stringify(recipe), how: await readFile(import.meta.filename) }).slice(0, 12);
  const target = join(CACHE, name);
  if (await exists(target)) return target;
  await mkdir(CACHE, { recursive: true });
  await using work = await staging(target);
  const root = join(work.path, 'root');
  try {
    const debs = join(work.path, 'debs');
    await unpackPackages({ recipe, tree: root, debs, workDir: work.path, log: () => undefined, signal });
  } catch (error) {
    throw new InfraletError('UNAVAILABLE', `moto cannot be had from Debian: ${errorMessage(error)}`, { cause: error });
  }
  await finish(root);
  await run('chroot', [root, '/usr/bin/python3', '-c', WARM_UP], { signal, timeoutMs: 120_000 });
  for (const old of await readdir(CACHE)) {
    if (!old.startsWith('.')) await rm(join(CACHE, old), { recursive: true, force: true });
  }
  await rename(root, target);
  return target;
}

/** What the packages' scripts would have done, as far as Python needs it: they were unpacked, not installed. */
async function finish(root: string): Promise<void> {
  for (const name of ['bin', 'lib', 'lib64', 'sbin']) await symlink(`usr/${name}`, join(root, name));
  const certificates = join(root, 'usr/share/ca-certificates/mozilla');
  const names = (await readdir(certificates)).filter((file) => file.endsWith('.crt'));
  const bundle = await Promise.all(names.map(async (file) => await readFile(join(certificates, file), 'utf8')));
  await mkdir(join(root, 'etc/ssl/certs'), { recursive: true });
  await writeFile(join(root, 'etc/ssl/certs/ca-certificates.crt'), bundle.join('\n'));
}
