/** The node's mount table: what kind of file system a path is on, and where a bind mount comes from. */
import { readFile } from 'node:fs/promises';

export interface MountPoint {
  readonly point: string;
  /** "major:minor" of the file system. */
  readonly device: string;
  /** Path of the mount's root within its file system. */
  readonly root: string;
  readonly type: string;
  /** Options of the file system, not of this mount: a tmpfs' size is here. */
  readonly options: ReadonlyMap<string, string>;
}

export async function readMountTable(): Promise<readonly MountPoint[]> {
  return parseMountTable(await readFile('/proc/self/mountinfo', 'utf8'));
}

/** proc(5), mountinfo. Pure. */
export function parseMountTable(text: string): readonly MountPoint[] {
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => {
      const [left = '', right = ''] = line.split(' - ');
      const [, , device = '', root = '', point = ''] = left.split(' ');
      const [type = '', , options = ''] = right.split(' ');
      return { point: plain(point), device, root: plain(root), type, options: parseOptions(options) };
    });
}

/** The mount that `path` (absolute, without symlinks) is on; the newest of several on one point. */
export function mountOf(table: readonly MountPoint[], path: string): MountPoint | undefined {
  let best: MountPoint | undefined;
  for (const mount of table) {
    if (isBelow(path, mount.point) && mount.point.length >= (best?.point.length ?? 0)) best = mount;
  }
  return best;
}

/** The path that leads from `directory` to `path` inside their common file system, whatever they are mounted on. */
export function pathWithin(table: readonly MountPoint[], directory: string, path: string): string | undefined {
  const outer = mountOf(table, directory);
  const inner = mountOf(table, path);
  if (!outer || !inner || outer.device !== inner.device) return undefined;
  const from = inFileSystem(outer, directory);
  const to = inFileSystem(inner, path);
  return isBelow(to, from) ? to.slice(from === '/' ? 1 : from.length + 1) : undefined;
}

function inFileSystem({ root, point }: MountPoint, path: string): string {
  const rest = path.slice(point === '/' ? 0 : point.length);
  const joined = root === '/' ? rest : `${root}${rest}`;
  return joined === '' ? '/' : joined.replace(/(?<=.)\/$/, '');
}

function isBelow(path: string, directory: string): boolean {
  return directory === '/' || path === directory || path.startsWith(`${directory}/`);
}

/** Spaces, tabs, newlines and backslashes are written as octal numbers; a deleted source has a note behind its name. */
function plain(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

function parseOptions(text: string): ReadonlyMap<string, string> {
  return new Map(
    text.split(',').map((option) => {
      const at = option.indexOf('=');
      return at < 0 ? ([option, ''] as const) : ([option.slice(0, at), option.slice(at + 1)] as const);
    }),
  );
}

/** "65536k", "2M", "1g": as the kernel writes sizes in mount options. */
export function sizeOption(text: string | undefined): number | undefined {
  const [, digits, unit = ''] = /^(\d+)([kmg]?)$/i.exec(text ?? '') ?? [];
  if (digits === undefined) return undefined;
  return Number(digits) * ({ '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }[unit.toLowerCase()] ?? 1);
}
