import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { classifyMount } from '../../../src/volume/classify.ts';
import { readTree } from '../../../src/volume/tree.ts';

const pod = '/var/lib/kubelet/pods/1b2c';

test.each([
  [`${pod}/volumes/kubernetes.io~empty-dir/cache`, 'emptyDir'],
  [`${pod}/volumes/kubernetes.io~configmap/settings`, 'api'],
  [`${pod}/volumes/kubernetes.io~projected/kube-api-access-x`, 'api'],
  [`${pod}/volumes/kubernetes.io~secret/tls`, 'api'],
  [`${pod}/volumes/kubernetes.io~downward-api/info`, 'api'],
  [`${pod}/volumes/kubernetes.io~csi/pvc-1/mount`, 'plugin'],
  [`${pod}/volume-subpaths/settings/web/0`, 'subPath'],
  [`${pod}/etc-hosts`, 'kubeletFile'],
  [`${pod}/containers/web/0a1b2c`, 'kubeletFile'],
  ['/srv/data', 'hostPath'],
  ['/', 'hostPath'],
])('%s is %s', (path, kind) => {
  expect(classifyMount(path)).toBe(kind);
});

describe('readTree', () => {
  const limits = { maxBytes: 1000, maxFiles: 10 };
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'tree-'));
  });
  afterEach(async () => {
    await rm(root, { recursive: true });
  });

  async function read(onSkipped: (path: string, why: string) => void = () => undefined) {
    const entries = [];
    for await (const file of readTree(root, limits, onSkipped)) {
      let text = '';
      if (file.kind === 'file') for await (const chunk of file.content) text += Buffer.from(chunk).toString();
      entries.push({
        path: file.path,
        kind: file.kind,
        mode: file.mode,
        text,
        link: file.kind === 'symlink' ? file.link : '',
      });
    }
    return entries;
  }

  test("carries modes, symlinks and contents, parents first and the kubelet's ..data link last", async () => {
    await mkdir(join(root, '..2026'), { mode: 0o755 });
    await writeFile(join(root, '..2026', 'key'), 'value');
    await chmod(join(root, '..2026', 'key'), 0o4640);
    await symlink('..2026', join(root, '..data'));
    await symlink('..data/key', join(root, 'key'));
    const entries = await read();
    expect(entries.map(({ path }) => path)).toEqual(['', '..2026', '..2026/key', 'key', '..data']);
    expect(entries[2]).toMatchObject({ kind: 'file', mode: 0o4640, text: 'value' });
    expect(entries[4]).toMatchObject({ kind: 'symlink', link: '..2026' });
  });

  test('links are carried as links, never followed out of the tree', async () => {
    await symlink('/etc/passwd', join(root, 'out'));
    expect(await read()).toEqual([
      expect.objectContaining({ path: '', kind: 'directory' }),
      expect.objectContaining({ path: 'out', kind: 'symlink', link: '/etc/passwd' }),
    ]);
  });

  test('sockets are named as left out', async () => {
    const server = createServer().listen(join(root, 'agent.sock'));
    try {
      const skipped: string[] = [];
      await read((path, why) => skipped.push(`${path}: ${why}`));
      expect(skipped).toEqual([`${join(root, 'agent.sock')}: a socket`]);
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  test('too many bytes or files are refused with the setting to change', async () => {
    await writeFile(join(root, 'big'), 'x'.repeat(1001));
    await expect(read()).rejects.toThrow(/too large/);
    await rm(join(root, 'big'));
    for (let i = 0; i < 10; i += 1) await writeFile(join(root, `f${i}`), '');
    await expect(read()).rejects.toThrow(/too large/);
  });

  test('an empty file has no content and keeps its time', async () => {
    await writeFile(join(root, 'empty'), '');
    await utimes(join(root, 'empty'), 1000, 1000);
    const files = [];
    for await (const file of readTree(join(root, 'empty'), limits, () => undefined)) files.push(file);
    expect(files).toMatchObject([{ path: '', kind: 'file', size: 0, mtimeMs: 1_000_000 }]);
  });
});
