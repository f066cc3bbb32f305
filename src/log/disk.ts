/** The node's side of logs: files that others rename, seen by what they are and not by what they are called. */
import { mkdir, open, readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';

export interface LogFile {
  /** Device and inode. */
  readonly file: string;
  size(): Promise<number>;
  /** Appends what it can, at least one byte; how many bytes it was. */
  append(data: Uint8Array): Promise<number>;
  /** Until its content is on the disk. */
  sync(): Promise<void>;
  close(): Promise<void>;
}

export interface LogDisk {
  /** Opens for appending; made, parents too, when it is missing. */
  open(path: string): Promise<LogFile>;
  /** Size of that file wherever in the directory of `path` it is, once its content is on the disk; undefined: not there. */
  earlier(path: string, file: string): Promise<number | undefined>;
}

/** As containerd makes them. */
const MODE = 0o640;

export const logDisk: LogDisk = {
  async open(path) {
    await mkdir(dirname(path), { recursive: true });
    const handle = await open(path, 'a', MODE);
    const { dev, ino } = await handle.stat();
    return {
      file: identity(dev, ino),
      size: async () => (await handle.stat()).size,
      append: async (data) => (await handle.write(data)).bytesWritten,
      sync: () => handle.datasync(),
      close: () => handle.close(),
    };
  },

  async earlier(path, file) {
    const directory = dirname(path);
    for (const name of await readdir(directory)) {
      const found = join(directory, name);
      const stats = await stat(found).catch(() => undefined);
      if (!stats?.isFile() || identity(stats.dev, stats.ino) !== file) continue;
      await using handle = await open(found, 'r');
      await handle.datasync();
      return stats.size;
    }
    return undefined;
  },
};

function identity(device: number, inode: number): string {
  return `${device}:${inode}`;
}
