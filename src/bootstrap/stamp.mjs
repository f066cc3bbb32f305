/** Stamps: files that say for which inputs a step was done, so that the next start can skip it. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Digest of files and directories (recursively, by name and content), in a stable order. What is missing counts too.
 * @param {string} root
 * @param {readonly string[]} paths relative to `root`
 */
export function digestOf(root, paths) {
  const hash = createHash('sha256');
  /** @param {string} path */
  const add = (path) => {
    const full = join(root, path);
    if (!existsSync(full)) {
      hash.update(`${path}\0absent\0`);
    } else if (statSync(full).isDirectory()) {
      for (const name of readdirSync(full).sort()) add(join(path, name));
    } else {
      const content = readFileSync(full);
      hash.update(`${path}\0${content.length}\0`).update(content);
    }
  };
  for (const path of paths) add(path);
  return hash.digest('hex');
}

/**
 * Content of a stamp, or undefined.
 * @param {string} file
 */
export function readStamp(file) {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return undefined;
  }
}

/**
 * @param {string} file
 * @param {string} content
 */
export function writeStamp(file, content) {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.tmp`, `${content}\n`);
  renameSync(`${file}.tmp`, file);
}
