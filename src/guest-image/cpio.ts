/** Writes initramfs archives (cpio "newc"). Own code, because device nodes and owners then need no root and no tool. */

export type CpioEntry =
  | { readonly path: string; readonly kind: 'directory' }
  | { readonly path: string; readonly kind: 'file'; readonly mode: number; readonly data: Uint8Array }
  | { readonly path: string; readonly kind: 'symlink'; readonly target: string }
  | { readonly path: string; readonly kind: 'device'; readonly major: number; readonly minor: number };

const TYPE = { directory: 0o040000, file: 0o100000, symlink: 0o120000, device: 0o020000 } as const;

/** All entries belong to root and carry no time, so equal content makes equal archives. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const blocks = entries.flatMap((entry, index) => encode(entry, index + 1));
  return Buffer.concat([...blocks, ...record('TRAILER!!!', { inode: 0, mode: 0, links: 1 }, new Uint8Array())]);
}

function encode(entry: CpioEntry, inode: number): readonly Uint8Array[] {
  const none = new Uint8Array();
  switch (entry.kind) {
    case 'directory':
      return record(entry.path, { inode, mode: TYPE.directory | 0o755, links: 2 }, none);
    case 'file':
      return record(entry.path, { inode, mode: TYPE.file | entry.mode, links: 1 }, entry.data);
    case 'symlink':
      return record(entry.path, { inode, mode: TYPE.symlink | 0o777, links: 1 }, Buffer.from(entry.target));
    case 'device':
      return record(
        entry.path,
        { inode, mode: TYPE.device | 0o600, links: 1, major: entry.major, minor: entry.minor },
        none,
      );
  }
}

interface Header {
  readonly inode: number;
  readonly mode: number;
  readonly links: number;
  readonly major?: number;
  readonly minor?: number;
}

function record(path: string, header: Header, data: Uint8Array): readonly Uint8Array[] {
  const name = Buffer.from(`${path}\0`);
  const { inode, mode, links, major = 0, minor = 0 } = header;
  // inode, mode, uid, gid, links, mtime, size, device (2), rdevice (2), name size, checksum
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, major, minor, name.length, 0];
  const text = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`;
  const head = Buffer.concat([Buffer.from(text), name]);
  return [head, padding(head.length), data, padding(data.length)];
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
