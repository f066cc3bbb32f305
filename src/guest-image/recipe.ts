/** The recipe of the guest image: config/guest/recipe.yaml and the files beside it. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';
import { z } from 'zod';
import { errorMessage, InfraletError } from '../base/errors.ts';

/** The project's root: src, config and node_modules lie below it. */
export const PROJECT_ROOT = join(import.meta.dirname, '..', '..');

export const RECIPE_DIR = join(PROJECT_ROOT, 'config', 'guest');

/** Relative, without a way out of the tree it is joined to. */
const relativePath = z.string().regex(/^(?!\/)(?!.*(^|\/)\.\.(\/|$)).+$/, 'must be a relative path without ".."');
const word = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9+._-]*$/);
const words = z.array(word);

const recipeSchema = z.strictObject({
  suite: word,
  architecture: word,
  components: words.min(1),
  packages: words.min(1),
  files: z.array(relativePath).min(1),
  /** Where in the image, and from where in the packages. */
  moved: z.record(relativePath, relativePath).default({}),
  /** Programs and plug-ins of the node's file server, from the same packages. */
  share: z.array(relativePath).min(1),
  pause: z.strictObject({ binary: relativePath, args: z.array(z.string()), reference: z.string().min(1) }),
  modules: z.strictObject({ initramfs: words, disk: words, boot: words, available: words }),
  commandLine: z.strictObject({ common: z.string(), tcg: z.string(), disk: z.string() }),
  /** Packages whose programs make the disk for clouds. */
  disk: z.strictObject({ packages: words.min(1) }),
  scratch: z.strictObject({
    /** Bytes of the base, before a guest grows it. */
    size: z.int().min(64 * 2 ** 20),
  }),
});

export type Recipe = z.output<typeof recipeSchema>;

export async function readRecipe(directory: string): Promise<Recipe> {
  const path = join(directory, 'recipe.yaml');
  let document: unknown;
  try {
    document = parse(await readFile(path, 'utf8'));
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `the guest image's recipe cannot be read: ${errorMessage(error)}`, {
      cause: error,
    });
  }
  const result = recipeSchema.safeParse(document);
  if (result.success) return result.data;
  throw new InfraletError('INVALID_ARGUMENT', `${path}: ${z.prettifyError(result.error)}`);
}
