/** Whatever paths and links come, nothing outside the root changes. */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { components, Directory } from '../../../src/agent/directory.ts';
import { removeFiles } from '../../../src/agent/put-files.ts';
import { type TreeEntry, TreeWriter } from '../../../src/agent/tree.ts';
import { InfraletError } from '../../../src/base/errors.ts';

let dir = '';
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'infralet-tree-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const part = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', 'b', 'c', 'link') },
  { weight: 2, arbitrary: fc.constantFrom('..', '.', '', 'outside', '\0', '..data', '...', ' ', '~', '-') },
  { weight: 1, arbitrary: fc.string({ maxLength: 8 }) },
);
const path = fc.array(part, { maxLength: 5 }).map((parts) => parts.join('/'));
/** Mostly paths that meet each other and the planted links; the rest are attempts to climb. */
const hostilePath = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('a', 'b', 'link', 'a/b', 'a/secret', 'link/secret', 'secret') },
  { weight: 2, arbitrary: path },
  { weight: 1, arbitrary: path.map((text) => `/${text}`) },
  { weight: 1, arbitrary: path.map((text) => `../${text}`) },
);
const linkTarget = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom('../outside', '../../outside', '../outside/a', '../outside/secret') },
  { weight: 1, arbitrary: fc.oneof(path, fc.constantFrom('..', '../..', '/', '/tmp')) },
);
const entry = fc.record({
  kind: fc.constantFrom<TreeEntry['kind']>('file', 'directory', 'symlink'),
  path: hostilePath,
  link: linkTarget.filter((text) => text !== '' && !text.includes('\0')),
});
const operation = fc.oneof(
  fc.record({
    put: hostilePath,
    manner: fc.constantFrom('replace' as const, 'add' as const, 'sync' as const, 'keep' as const),
    entries: fc.array(entry, { maxLength: 5 }),
  }),
  fc.record({ remove: hostilePath }),
  // What a container does in its volume meanwhile.
  fc.record({ plant: fc.constantFrom('a', 'b', 'link'), to: linkTarget }),
);

/** Everything below `root` with its content. Node's own recursive readdir follows links, to "/" if need be. */
function listing(root: string): readonly string[] {
  return readdirSync(root, { withFileTypes: true }).flatMap((found) => {
    const name = join(root, found.name);
    if (found.isDirectory()) return [`${name}/`, ...listing(name)];
    return [`${name} ${found.isFile() ? readFileSync(name, 'utf8') : 'link'}`];
  });
}

test('no sequence of uploads, removals and planted links reaches outside the root', () => {
  const outside = join(dir, 'outside');
  const fresh = (): readonly string[] => {
    rmSync(outside, { recursive: true, force: true });
    mkdirSync(join(outside, 'a/b'), { recursive: true });
    for (const name of ['a/b/secret', 'secret']) writeFileSync(join(outside, name), 'untouched');
    return listing(outside);
  };

  fc.assert(
    fc.property(fc.array(operation, { maxLength: 8 }), (operations) => {
      const before = fresh();
      const root = join(dir, 'root');
      rmSync(root, { recursive: true, force: true });
      mkdirSync(root);
      for (const step of operations) {
        try {
          if ('put' in step) {
            using writer = new TreeWriter({ root, path: step.put, manner: step.manner });
            for (const { kind, path, link } of step.entries) {
              const size = kind === 'file' ? 4 : 0;
              writer.begin({ kind, path, link, size, mode: 0o777, uid: 0, gid: 0, mtimeMs: 0 });
              if (kind === 'file') writer.data(Buffer.from('evil'));
            }
            writer.commit();
          } else if ('remove' in step) {
            const roots = { ROOT_VOLUMES: root, ROOT_LOGS: '', ROOT_CNI: '', ROOT_SCRATCH: '', ROOT_SECCOMP: '' };
            removeFiles({ root: 'ROOT_VOLUMES', paths: [step.remove] }, roots);
          } else {
            rmSync(join(root, step.plant), { recursive: true, force: true });
            symlinkSync(step.to, join(root, step.plant));
          }
        } catch (error) {
          // Refusals are right; what counts is what happened outside. Programming errors are neither.
          if (error instanceof TypeError && !('code' in error)) throw error;
        }
      }
      expect(listing(outside)).toEqual(before);
      expect(readdirSync(dir).sort()).toEqual(['outside', 'root']);
      expect(listing(root).filter((name) => name.includes('.infralet-'))).toEqual([]);
    }),
    { numRuns: 300 },
  );
});

test('components of a path never name a way out', () => {
  fc.assert(
    fc.property(hostilePath, (text) => {
      let parts: readonly string[];
      try {
        parts = components(text);
      } catch (error) {
        expect(error).toBeInstanceOf(InfraletError);
        return;
      }
      for (const name of parts) {
        expect(['', '.', '..']).not.toContain(name);
        expect(name).not.toMatch(/[/\0]/);
      }
    }),
  );
});

test('a directory that is exchanged for a link after it was opened is still the directory', () => {
  const root = join(dir, 'root');
  mkdirSync(join(root, 'a'), { recursive: true });
  mkdirSync(join(dir, 'outside'));
  using opened = Directory.walk(root, ['a'], false);
  rmSync(join(root, 'a'), { recursive: true });
  symlinkSync(join(dir, 'outside'), join(root, 'a'));
  expect(() => opened.mkdir('x')).toThrow('ENOENT');
  expect(readdirSync(join(dir, 'outside'))).toEqual([]);
});

test('more bytes or fewer than announced, and too many entries, are refused', () => {
  const common = { mode: 0o600, uid: 0, gid: 0, mtimeMs: 0, link: '' };
  using writer = new TreeWriter({ root: dir, path: 'x', manner: 'replace' });
  writer.begin({ ...common, kind: 'file', path: 'f', size: 3 });
  expect(() => writer.data(Buffer.from('four'))).toThrow('more bytes');
  writer.data(Buffer.from('12'));
  expect(() => writer.commit()).toThrow('1 bytes early');
  expect(() => writer.begin({ ...common, kind: 'file', path: 'huge', size: 2 ** 50 })).toThrow('more than');
});
