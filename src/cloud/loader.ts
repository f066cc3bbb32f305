/**
 * Finds a provider by its name in the configuration. Built-in ones live in providers/<name>/index.ts; any other name is
 * that of an npm package. Loaded at run time only: cloud SDKs cost a second and hundreds of megabytes.
 */
import { access } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';
import type { ProviderModule } from './contract.ts';

const BUILT_IN = /^[a-z][a-z0-9-]*$/;
/** Scoped or plain package names; no paths and no URLs, so that a configuration cannot load an arbitrary file. */
const PACKAGE = /^(@[a-z0-9][a-z0-9._-]*\/)?[a-z0-9][a-z0-9._-]*$/;

const isFunction = (value: unknown): boolean => typeof value === 'function';
const shape = z.object({
  provider: z.object({
    name: z.string().min(1),
    parseConfig: z.custom<ProviderModule['parseConfig']>(isFunction, 'must be a function'),
    create: z.custom<ProviderModule['create']>(isFunction, 'must be a function'),
    publish: z.custom<NonNullable<ProviderModule['publish']>>(isFunction, 'must be a function').exactOptional(),
  }),
});

/**
 * Loads the module that exports `provider: ProviderModule`.
 * Throws NOT_FOUND when there is none of that name, FAILED_PRECONDITION when it is not a provider.
 */
export async function loadProvider(name: string): Promise<ProviderModule> {
  if (!PACKAGE.test(name)) {
    throw new InfraletError(
      'INVALID_ARGUMENT',
      `${JSON.stringify(name)} is neither a provider nor an npm package name`,
    );
  }
  const loaded = await importModule(name);
  const parsed = shape.safeParse(loaded);
  if (!parsed.success) {
    const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`).join('; ');
    throw new InfraletError('FAILED_PRECONDITION', `the module of provider ${name} is not a provider: ${problems}`, {
      hint: 'it must export `provider`, an object of the type ProviderModule in src/cloud/contract.ts',
    });
  }
  return parsed.data.provider;
}

async function importModule(name: string): Promise<unknown> {
  const builtIn = BUILT_IN.test(name) ? await builtInUrl(name) : undefined;
  try {
    return await import(builtIn ?? name);
  } catch (error) {
    if (builtIn === undefined && hasErrno(error, 'ERR_MODULE_NOT_FOUND')) {
      throw new InfraletError('NOT_FOUND', `there is no provider named ${name}`, {
        cause: error,
        hint: `set \`provider\` to a folder of providers/, or install the npm package ${name}`,
      });
    }
    throw new InfraletError('INTERNAL', `the provider ${name} cannot be loaded: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

async function builtInUrl(name: string): Promise<string | undefined> {
  const url = new URL(`../../providers/${name}/index.ts`, import.meta.url);
  try {
    await access(fileURLToPath(url));
    return url.href;
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}
