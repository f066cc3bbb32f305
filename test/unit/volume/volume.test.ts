import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readApiVolume } from '../../../src/volume/api-volume.ts';
import { classifyMount, volumeOfSubPath } from '../../../src/volume/classify.ts';
import { mountOf, parseMountTable, pathWithin, sizeOption } from '../../../src/volume/mount-table.ts';
import { readTree } from '../../../src/volume/tree.ts';

const pod = '/var/lib/kubelet/pods/1b2c';

test.each([
  [`${pod}/volumes/kubernetes.io~empty-dir/cache`, 'emptyDir'],
  [`${pod}/volumes/kubernetes.io~configmap/settings`, 'api'],
  [`${pod}/volumes/kubernetes.io~projected/kube-api-access-x`, 'api'],
  [`${pod}/volumes/kubernetes.io~secret/tls`, 'api'],
  [`${pod}/volumes/kubernetes.io~downward-api/info`, 'api'],
  [`${pod}/volumes/kubernetes.io~csi/pvc-1/mount`, 'plugin'],
  [`${pod}/volumes/example.com~disk/pv`, 'plugin'],
  [`${pod}/volumes/example.com~disk/pv/deep`, 'plugin'],
  [`${pod}/volume-subpaths/settings/web/0`, 'subPath'],
  [`${pod}/volumes/kubernetes.io~configmap/settings/`, 'api'],
  [`${pod}/volumes/kubernetes.io~configmap/settings/key`, 'subPath'],
  [`${pod}/volumes/kubernetes.io~empty-dir/cache/deep`, 'subPath'],
  [`${pod}/etc-hosts`, 'hosts'],
  [`${pod}/containers/web/0a1b2c`, 'kubeletFile'],
  ['/srv/data', 'hostPath'],
  ['/', 'hostPath'],
])('%s is %s', (path, kind) => {
  expect(classifyMount(path)).toBe(kind);
});

test.each([
  [`${pod}/volume-subpaths/cache/web/0`, { volumes: `${pod}/volumes`, name: 'cache' }],
  [
    `${pod}/volumes/kubernetes.io~empty-dir/cache/a/b`,
    { volumes: `${pod}/volumes`, plugin: 'kubernetes.io~empty-dir', name: 'cache' },
  ],
  ['/srv/data', undefined],
])('the volume of %s is %o', (path, expected) => {
  expect(volumeOfSubPath(path)).toEqual(expected);
});

describe('the mount table', () => {
  const table = parseMountTable(
    [
      '1 0 254:0 / / rw shared:1 - ext4 /dev/vda rw',
      `2 1 0:40 / ${pod}/volumes/kubernetes.io~empty-dir/mem rw - tmpfs tmpfs rw,size=65536k,inode64`,
      `3 1 254:0 ${pod}/volumes/kubernetes.io~empty-dir/cache/a\\040b ${pod}/volume-subpaths/cache/web/0 rw - ext4 /dev/vda rw`,
      `4 2 0:40 /sub ${pod}/volume-subpaths/mem/web/1 rw - tmpfs tmpfs rw,size=65536k`,
      '5 1 0:41 / /srv rw - ext4 /dev/vdb rw',
      '6 1 0:42 / /srv rw - tmpfs tmpfs rw',
    ].join('\n'),
  );

  test('the newest and nearest mount counts', () => {
    expect(mountOf(table, '/srv/x')).toMatchObject({ device: '0:42', type: 'tmpfs' });
    expect(mountOf(table, '/srvx')).toMatchObject({ type: 'ext4', point: '/' });
    expect(sizeOption(mountOf(table, `${pod}/volumes/kubernetes.io~empty-dir/mem`)?.options.get('size'))).toBe(2 ** 26);
  });

  test('a bind mount leads back to where it comes from', () => {
    const volumes = `${pod}/volumes/kubernetes.io~empty-dir`;
    const sub = `${pod}/volume-subpaths`;
    expect(pathWithin(table, `${volumes}/cache`, `${sub}/cache/web/0`)).toBe('a b');
    expect(pathWithin(table, `${volumes}/mem`, `${sub}/mem/web/1`)).toBe('sub');
    expect(pathWithin(table, `${volumes}/mem`, `${sub}/cache/web/0`)).toBeUndefined();
    expect(pathWithin(table, `${volumes}/cach`, `${sub}/cache/web/0`)).toBeUndefined();
    expect(pathWithin(table, '/srv', '/srv/a/b')).toBe('a/b');
  });
});

describe('reading volumes', () => {
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
    for await (const file of readApiVolume(root, limits, onSkipped)) {
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

  test("carries modes, symlinks and contents, parents first the names last, which lead through the kubelet's ..data link", async () => {
    await mkdir(join(root, '..2026'), { mode: 0o755 });
    await writeFile(join(root, '..2026', 'key'), 'value');
    await chmod(join(root, '..2026', 'key'), 0o4640);
    await symlink('..2026', join(root, '..data'));
    await symlink('..data/key', join(root, 'key'));
    const entries = await read();
    expect(entries.map(({ path }) => path)).toEqual(['', '..2026', '..2026/key', '..data', 'key']);
    expect(entries[2]).toMatchObject({ kind: 'file', mode: 0o4640, text: 'value' });
    expect(entries[3]).toMatchObject({ kind: 'symlink', link: '..2026' });
  });

  test('a volume that is exchanged while it is read is no mix: it fails, or the link was not sent', async () => {
    for (const version of ['..1', '..2']) {
      await mkdir(join(root, version));
      await writeFile(join(root, version, 'key'), version);
    }
    await symlink('..1', join(root, '..data'));
    for (const moment of [0, 1, 2, 3]) {
      await rm(join(root, '..data'));
      await symlink('..1', join(root, '..data'));
      const sent: string[] = [];
      const exchange = async () => {
        for await (const { path } of readApiVolume(root, limits, () => undefined)) {
          if (sent.push(path) !== moment + 1) continue;
          await rm(join(root, '..data'));
          await symlink('..2', join(root, '..data'));
        }
      };
      await expect(exchange()).rejects.toMatchObject({ code: 'ABORTED' });
      expect(sent).not.toContain('..2/key');
    }
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
