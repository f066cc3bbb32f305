/** What the kubelet does to a volume of API objects on the node. */
import { mkdir, readdir, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

let versions = 0;

/** Its AtomicWriter: a new directory, one rename of `..data`, the visible names, then the old directory goes. */
export async function publish(volume: string, files: Readonly<Record<string, string | Uint8Array>>): Promise<void> {
  await mkdir(volume, { recursive: true });
  const before = await readdir(volume);
  versions += 1;
  const version = `..2026_11_23_17_00_00.${process.pid}${versions}`;
  await mkdir(join(volume, version));
  for (const [name, content] of Object.entries(files)) await writeFile(join(volume, version, name), content);
  await symlink(version, join(volume, '..data_tmp'));
  await rename(join(volume, '..data_tmp'), join(volume, '..data'));
  const names = new Set(Object.keys(files));
  for (const name of names) if (!before.includes(name)) await symlink(`..data/${name}`, join(volume, name));
  for (const name of before)
    if (name !== '..data' && !names.has(name)) await rm(join(volume, name), { recursive: true });
}
