/** Debian packages, fetched and unpacked (not installed) by mmdebstrap from the mirror that this host's apt uses. */
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { run, tryRun } from '../base/process.ts';
import type { Recipe } from './recipe.ts';

const DEFAULT_MIRROR = 'http://deb.debian.org/debian';
const DEFAULT_SECURITY_MIRROR = 'http://deb.debian.org/debian-security';
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** Slow mirrors take minutes for the 90 MB; longer than this they are stuck. */
const DOWNLOAD_MS = 30 * 60_000;

/** Copies packages of earlier builds in, and new ones out. Written beside and renamed: a broken copy is never found. */
const COPY_IN =
  'mkdir -p "$1/var/cache/apt/archives"; cp "$INFRALET_DEBS"/*.deb "$1/var/cache/apt/archives/" 2>/dev/null || true';
const COPY_OUT = [
  'cd "$1/var/cache/apt/archives"',
  'for deb in *.deb; do [ -e "$INFRALET_DEBS/$deb" ] || { cp "$deb" "$INFRALET_DEBS/.part"; mv "$INFRALET_DEBS/.part" "$INFRALET_DEBS/$deb"; }; done',
  'ls *.deb > "$INFRALET_LIST"',
].join('; ');

export interface UnpackedPackages {
  /** Name → version. */
  readonly versions: Readonly<Record<string, string>>;
}

/** Unpacks the recipe's packages and all they depend on into `tree`, which must not exist. */
export async function unpackPackages(options: {
  readonly recipe: Recipe;
  readonly tree: string;
  /** Directory that keeps the downloaded packages. */
  readonly debs: string;
  readonly workDir: string;
  readonly log: (line: string) => void;
  readonly signal: AbortSignal;
}): Promise<UnpackedPackages> {
  const { recipe, tree, debs, workDir, log, signal } = options;
  await mkdir(debs, { recursive: true, mode: 0o700 });
  const list = join(workDir, 'packages.list');
  const sources = await sourceLines(recipe, signal);
  const result = await tryRun(
    'mmdebstrap',
    [
      ...['--mode=root', '--variant=extract', '--format=directory', `--architectures=${recipe.architecture}`],
      ...[`--keyring=${KEYRING}`, `--include=${recipe.packages.join(',')}`],
      // The cache of packages is not empty by our own doing.
      '--skip=download/empty,output/dev,output/mknod',
      ...[`--setup-hook=${COPY_IN}`, `--extract-hook=${COPY_OUT}`],
      ...[recipe.suite, tree, ...sources],
    ],
    {
      signal,
      timeoutMs: DOWNLOAD_MS,
      env: { INFRALET_DEBS: debs, INFRALET_LIST: list, TMPDIR: workDir },
      onStderrLine: (line) => {
        if (/^I: (running apt-get|downloading|extracting)/.test(line)) log(line.slice('I: '.length));
      },
    },
  );
  if (result.exitCode !== 0) {
    const reason = result.stderr.split('\n').filter((line) => /^(E:|Err:|W: Failed)/.test(line));
    throw new InfraletError(
      'UNAVAILABLE',
      `the packages of the guest image cannot be had: ${reason.join('; ').slice(-1500)}`,
      {
        hint: `check that this host reaches its Debian mirror (sources: ${sources.join(' | ')})`,
      },
    );
  }
  const files = (await readFile(list, 'utf8')).trim().split('\n');
  await prune(debs, new Set(files));
  return { versions: Object.fromEntries(files.map(parseDebName)) };
}

/** "containerd_1.7.24~ds1-6_amd64.deb" → ["containerd", "1.7.24~ds1-6"]; a colon in a version is written %3a. */
export function parseDebName(file: string): readonly [name: string, version: string] {
  const [name, version] = decodeURIComponent(file.replace(/\.deb$/, '')).split('_');
  if (!name || !version) throw new InfraletError('INTERNAL', `${JSON.stringify(file)} is not a Debian package's name`);
  return [name, version];
}

/** Superseded packages are dropped, or the cache would grow with every security update. */
async function prune(debs: string, wanted: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(debs)) if (!wanted.has(name)) await rm(join(debs, name), { force: true });
}

async function sourceLines(recipe: Recipe, signal: AbortSignal): Promise<readonly string[]> {
  const targets = await run(
    'apt-get',
    ['indextargets', '--format', '$(CREATED_BY)\t$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)'],
    { signal, timeoutMs: 30_000 },
  );
  return debianSources(recipe, targets);
}

/**
 * The sources.list lines for the recipe's suite on the mirrors of the host: those whose apt sources name a Debian release.
 * Pure; `targets` is what `apt-get indextargets` prints (created-by, uri, release, component; tab-separated).
 */
export function debianSources(recipe: Pick<Recipe, 'suite' | 'components'>, targets: string): readonly string[] {
  const rows = targets
    .split('\n')
    .map((line) => line.split('\t'))
    .filter(([kind, , , component]) => kind === 'Packages' && component === 'main')
    .map(([, uri = '', release = '']) => ({ uri: uri.replace(/\/+$/, ''), release }));
  const isDebian = ({ uri }: { readonly uri: string }): boolean => /^[a-z+]+:.*\/debian$/.test(uri);
  const isSecurity = ({ uri, release }: { readonly uri: string; readonly release: string }): boolean =>
    release.endsWith('-security') && /^[a-z+]+:.*debian-security$/.test(uri);
  const mirror = rows.find(isDebian)?.uri ?? DEFAULT_MIRROR;
  const security = rows.find(isSecurity)?.uri ?? DEFAULT_SECURITY_MIRROR;
  const components = recipe.components.join(' ');
  return [
    `deb ${mirror} ${recipe.suite} ${components}`,
    `deb ${mirror} ${recipe.suite}-updates ${components}`,
    `deb ${security} ${recipe.suite}-security ${components}`,
  ];
}
