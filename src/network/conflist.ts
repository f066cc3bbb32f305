/** Reads the CNI configuration that the node's administrator, or the cluster's network add-on, put in place. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';

/** As `network.confDir`: the conflist that comes with Infralet, for nodes without a cluster network. */
const EMBEDDED = 'embedded';
/** Where the conflist that comes with Infralet lies. */
export const EMBEDDED_CONF_DIR = fileURLToPath(new URL('../../config/cni', import.meta.url));
/** Result formats we can read; 0.2.0 and older have no interfaces in their results. */
const VERSIONS: ReadonlySet<string> = new Set(['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']);

/** Plugin names become paths below the binary directories. */
const pluginSchema = z
  .looseObject({
    type: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/),
    capabilities: z.record(z.string(), z.boolean()).default({}),
    ipam: z.looseObject({ type: z.string().optional() }).optional(),
  })
  .readonly();

export const conflistSchema = z.looseObject({
  cniVersion: z.string().refine((version) => VERSIONS.has(version), `must be one of ${[...VERSIONS].join(', ')}`),
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/),
  disableCheck: z.union([z.boolean(), z.enum(['true', 'false'])]).default(false),
  plugins: z.array(pluginSchema).min(1),
});

export type Conflist = Readonly<z.output<typeof conflistSchema>>;
export type PluginConfig = Conflist['plugins'][number];

/**
 * The first *.conflist of the directory, in the order of names. host-local keeps its addresses below `cacheDir` unless the
 * file says where. Throws FAILED_PRECONDITION when there is none or it cannot be used.
 */
export async function loadConflist(confDir: string, cacheDir: string): Promise<Conflist> {
  const dir = confDir === EMBEDDED ? EMBEDDED_CONF_DIR : confDir;
  const file = (await conflistFiles(dir))[0];
  if (file === undefined) {
    throw new InfraletError('FAILED_PRECONDITION', `there is no CNI configuration (*.conflist) in ${dir}`, {
      hint: "install the cluster's network add-on, or set network.confDir to `embedded` for Infralet's own bridge",
    });
  }
  const path = join(dir, file);
  try {
    const conflist = conflistSchema.parse(JSON.parse(await readFile(path, 'utf8')));
    return { ...conflist, plugins: conflist.plugins.map((plugin) => withAddressStore(plugin, cacheDir)) };
  } catch (error) {
    const problem = error instanceof z.ZodError ? z.prettifyError(error) : errorMessage(error);
    throw new InfraletError('FAILED_PRECONDITION', `the CNI configuration ${path} cannot be used: ${problem}`, {
      cause: error,
    });
  }
}

async function conflistFiles(dir: string): Promise<readonly string[]> {
  try {
    return (await readdir(dir)).filter((name) => name.endsWith('.conflist')).sort();
  } catch (error) {
    if (hasErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

function withAddressStore(plugin: PluginConfig, cacheDir: string): PluginConfig {
  const { ipam } = plugin;
  if (ipam?.type !== 'host-local' || ipam['dataDir'] !== undefined) return plugin;
  return { ...plugin, ipam: { ...ipam, dataDir: join(cacheDir, 'networks') } };
}
