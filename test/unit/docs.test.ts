/** What the documentation names is there: files, scripts, settings, commands, metrics. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { runCommand } from '../../src/cli/program.ts';
import { STEPS } from '../../src/sandbox/plan.ts';
import { captureIo } from '../support/cli-io.ts';

const ROOT = join(import.meta.dirname, '../..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const below = (directory: string, extension: string): readonly string[] =>
  readdirSync(join(ROOT, directory), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(extension))
    .map((name) => join(directory, name));

const PAGES = ['README.md', 'config/guest/README.md', ...below('docs', '.md')];
/** Of a page, with the page in front: what is missing is reported with it. */
const found = (pattern: RegExp): readonly (readonly [page: string, word: string])[] =>
  PAGES.flatMap((page) => [...read(page).matchAll(pattern)].map(([, word = '']) => [page, word] as const));

test('every path of the repository that a page names exists', () => {
  const paths = found(/(?<![\w/>.-])((?:src|test|config|proto|providers|docs)\/[\w./-]*[\w/])(?!\*)/g)
    // The reader's own provider, in the guide.
    .filter(([, path]) => !path.includes('example'));
  expect(paths.length).toBeGreaterThan(80);
  const missing = paths.filter(([page, path]) => {
    const folder = page.startsWith('docs') ? '' : dirname(page);
    return !existsSync(join(ROOT, path)) && !existsSync(join(ROOT, folder, path));
  });
  expect(missing).toEqual([]);
});

test('every link of a page leads to a file and a heading', () => {
  const anchors = (page: string): readonly string[] =>
    [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
      title
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-'),
    );
  const links = found(/\]\(((?!https?:)[^)\s]+)\)/g);
  expect(links.length).toBeGreaterThan(20);
  const broken = links.filter(([page, link]) => {
    const [file = '', anchor] = link.split('#');
    const target = file === '' ? page : join(dirname(page), file);
    if (!existsSync(join(ROOT, target))) return true;
    return anchor !== undefined && !anchors(target).includes(anchor);
  });
  expect(broken).toEqual([]);
});

test('every npm script that a page names exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { readonly scripts: Readonly<Record<string, string>> };
  const runs = found(/npm run (\w[\w:-]*\w)/g);
  expect(runs.length).toBeGreaterThan(5);
  expect(runs.filter(([, name]) => !(name in scripts))).toEqual([]);
});

interface Schema {
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: Schema | boolean;
  readonly anyOf?: readonly Schema[];
}

/** Whether the schema has a place for these keys, one below the other. */
function has(schema: Schema, [key, ...rest]: readonly string[]): boolean {
  if (key === undefined) return true;
  if (schema.anyOf?.some((each) => has(each, [key, ...rest]))) return true;
  const inner = schema.properties?.[key] ?? schema.additionalProperties;
  return typeof inner === 'object' ? has(inner, rest) : false;
}

test('every setting that a page names exists', () => {
  const schema = JSON.parse(read('config/infralet.schema.json')) as Schema;
  const sections = Object.keys(schema.properties ?? {});
  const named = found(/`([a-z]\w+(?:\.\w+)+)(?:: [^`]*)?`/g).filter(([, name]) =>
    sections.includes(name.split('.')[0] ?? ''),
  );
  // Files and steps have such names, too.
  const steps: ReadonlySet<string> = new Set(STEPS);
  const keys = named.filter(([, name]) => !/\.(ts|md|json|yaml|db|sock)$/.test(name) && !steps.has(name));
  expect(keys.length).toBeGreaterThan(40);
  const unknown = keys.filter(([, name]) => {
    const [section, provider, ...rest] = name.split('.');
    if (section !== 'providers' || provider === undefined) return !has(schema, name.split('.'));
    const source = read(`providers/${provider}/config.ts`) + read('src/cloud/fleet-config.ts');
    return !rest.every((key) => source.includes(`  ${key}: `));
  });
  expect(unknown).toEqual([]);
});

test('every step of a sandbox is in the architecture, and no other', () => {
  const [, table = ''] = read('docs/architecture.md').split('| step | what it does |');
  const [rows = ''] = table.split('\n\n');
  const told = rows.split('\n').flatMap((row) => [...(row.split('|')[1] ?? '').matchAll(/`([\w.]+)`/g)]);
  expect(told.map(([, name = '']) => name).sort()).toEqual([...STEPS].sort());
});

test('every command is in the README, and every command of the README exists', async () => {
  const help = async (...words: readonly string[]): Promise<readonly string[]> => {
    const io = captureIo();
    await runCommand([...words, '--help'], io);
    const [, list = ''] = io.stdout().split('Commands:\n');
    return [...list.matchAll(/^ {2}([a-z]+)/gm)].flatMap(([, name = '']) => (name === 'help' ? [] : [name]));
  };
  const commands: string[] = [];
  for (const name of await help()) {
    const inner = await help(name);
    commands.push(...(inner.length > 0 ? inner.map((each) => `${name} ${each}`) : [name]));
  }
  expect(commands.length).toBeGreaterThan(15);
  const [, table = ''] = read('README.md').split('## Commands');
  const [rows = ''] = table.split('\n## ');
  // A pipe inside a cell is written `\\|`.
  const cells = rows.split('\n').map((row) => row.split(/(?<!\\)\|/)[1] ?? '');
  const told = cells.flatMap((cell) => [...cell.matchAll(/`([a-z]+(?: [a-z]+)?)/g)]).map(([, name = '']) => name);
  expect(commands.filter((name) => !told.includes(name))).toEqual([]);
  const known = new Set(commands);
  expect(told.filter((name) => !known.has(name) && !known.has(name.split(' ')[0] ?? ''))).toEqual([]);
});

test('every metric of the operations page exists, and every metric is on it', () => {
  const sources = below('src', '.ts').map(read).join('\n');
  const page = read('docs/operations.md');
  const made = new Set([...sources.matchAll(/'(infralet_[a-z_]+)'/g)].map(([, name = '']) => name));
  const told = new Set([...page.matchAll(/`(infralet_[a-z_]+)/g)].map(([, name = '']) => name));
  expect(made.size).toBeGreaterThan(20);
  expect([...told].filter((name) => !made.has(name))).toEqual([]);
  // Names that share their beginning are written once in full, then by their ends.
  const ends = [...page.matchAll(/`(_[a-z_]+)`/g)].map(([, end = '']) => end);
  expect([...made].filter((name) => !told.has(name) && !ends.some((end) => name.endsWith(end)))).toEqual([]);
});
