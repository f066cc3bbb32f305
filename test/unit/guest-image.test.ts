import { chmod, cp, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InfraletError } from '../../src/base/errors.ts';
import { cpio } from '../../src/guest-image/cpio.ts';
import { digestParts, digestTree, digestUuid } from '../../src/guest-image/digest.ts';
import { collectInputs } from '../../src/guest-image/inputs.ts';
import { moduleInfo, unpack } from '../../src/guest-image/kernel.ts';
import {
  FILE_ROLES,
  type GuestManifest,
  parseGuestManifest,
  readGuestManifest,
} from '../../src/guest-image/manifest.ts';
import { debianSources, parseDebName } from '../../src/guest-image/packages.ts';
import { RECIPE_DIR, readRecipe } from '../../src/guest-image/recipe.ts';
import { writeSparse } from '../../src/guest-image/sparse.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'infralet-guest-image-'));
});
afterEach(async () => {
  await rm(directory, { recursive: true, force: true });
});

const HEX = 'a'.repeat(64);

function aManifest(changes: Partial<Record<keyof GuestManifest, unknown>> = {}): Record<string, unknown> {
  const files = Object.fromEntries(
    FILE_ROLES.map((role) => [role, { name: `${role}.bin`, size: 4, allocated: 4096, sha256: HEX }]),
  );
  return {
    format: 1,
    inputDigest: HEX,
    imageDigest: HEX,
    builtAt: '2026-01-02T03:04:05.000Z',
    buildSeconds: 20.5,
    architecture: 'amd64',
    suite: 'trixie',
    versions: { kernel: '6', containerd: '1', crun: '1', node: '24', agent: '0' },
    packages: { crun: '1.21-1' },
    commandLine: 'console=ttyS0',
    commandLineTcg: '',
    pauseImage: 'infralet.internal/pause:1',
    files,
    ...changes,
  };
}

async function anImage(manifest: unknown = aManifest()): Promise<void> {
  await writeFile(join(directory, 'manifest.json'), JSON.stringify(manifest));
  for (const role of FILE_ROLES) await writeFile(join(directory, `${role}.bin`), 'data');
}

async function failure(work: Promise<unknown>): Promise<InfraletError> {
  const error = await work.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof InfraletError)) throw new Error(`expected an InfraletError, got ${String(error)}`);
  return error;
}

describe('the manifest', () => {
  it('is read when the image is whole', async () => {
    await anImage();
    expect((await readGuestManifest(directory)).files.kernel.name).toBe('kernel.bin');
  });

  it('names the directory and the command when there is no image', async () => {
    const error = await failure(readGuestManifest(join(directory, 'none')));
    expect(error.code).toBe('FAILED_PRECONDITION');
    expect(error.message).toContain(join(directory, 'none'));
    expect(error.hint).toContain('infralet image build');
  });

  it('is refused when a file is missing or has another size', async () => {
    await anImage();
    await writeFile(join(directory, 'rootfs.bin'), 'longer');
    expect((await failure(readGuestManifest(directory))).message).toContain('has 6 bytes; the manifest says 4');
    await rm(join(directory, 'rootfs.bin'));
    expect((await failure(readGuestManifest(directory))).message).toContain('lacks rootfs.bin');
  });

  it.each([
    ['no JSON', '{', 'is not JSON'],
    ['another format', JSON.stringify(aManifest({ format: 2 })), 'format'],
    ['an unknown key', JSON.stringify({ ...aManifest(), more: 1 }), 'more'],
    [
      'a file outside the directory',
      JSON.stringify(
        aManifest({
          files: { ...(aManifest()['files'] as object), kernel: { name: '../x', size: 1, allocated: 1, sha256: HEX } },
        }),
      ),
      'kernel',
    ],
  ])('is refused with %s', (_, text, part) => {
    expect(() => parseGuestManifest(text, 'manifest.json')).toThrow(part);
  });
});

describe('digests', () => {
  it('of parts depend on every name and every byte, not on the order', () => {
    fc.assert(
      fc.property(fc.dictionary(fc.string(), fc.string()), fc.string(), fc.string(), (parts, name, value) => {
        const digest = digestParts(parts);
        expect(digestParts(Object.fromEntries(Object.entries(parts).reverse()))).toBe(digest);
        if (Object.hasOwn(parts, name) && parts[name] === value) return;
        expect(digestParts({ ...parts, [name]: value })).not.toBe(digest);
      }),
    );
  });

  it('of parts cannot be shifted from one part into the next', () => {
    expect(digestParts({ a: 'xy', b: 'z' })).not.toBe(digestParts({ a: 'x', b: 'yz' }));
  });

  it('of a tree see contents, programs and links, and leave out what is excluded', async () => {
    await mkdir(join(directory, 'sub'));
    await writeFile(join(directory, 'sub', 'file'), 'one');
    const first = await digestTree(directory);
    await writeFile(join(directory, 'notes.md'), 'text');
    expect(await digestTree(directory, (path) => path !== 'notes.md')).toBe(first);
    await chmod(join(directory, 'sub', 'file'), 0o755);
    const program = await digestTree(directory);
    await symlink('file', join(directory, 'sub', 'link'));
    const linked = await digestTree(directory);
    expect(new Set([first, program, linked]).size).toBe(3);
  });

  it('give valid UUIDs', () => {
    expect(digestUuid('x')).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(digestUuid('x')).not.toBe(digestUuid('y'));
  });

  it('of the inputs are stable and follow the recipe', async () => {
    const copy = join(directory, 'recipe');
    await cp(RECIPE_DIR, copy, { recursive: true });
    const [original, same] = await Promise.all([collectInputs(), collectInputs(copy)]);
    expect(same.digest).toBe(original.digest);
    await writeFile(join(copy, 'rootfs', 'etc', 'hostname'), 'other\n');
    expect((await collectInputs(copy)).digest).not.toBe(original.digest);
  });
});

describe('the recipe', () => {
  it('names unknown keys and paths that leave the tree', async () => {
    await writeFile(join(directory, 'recipe.yaml'), 'suite: trixie\nfiles: [../etc/shadow]\nmore: 1\n');
    const error = await failure(readRecipe(directory));
    expect(error.message).toContain('relative path');
    expect(error.message).toContain('more');
  });
});

describe('Debian sources', () => {
  const recipe = { suite: 'trixie', components: ['main'] };

  it("use the mirrors of the host's own sources", () => {
    const targets = [
      'Packages\thttps://packages.example.org/apt/\tstable\tmain',
      'Packages\thttp://mirror.example.org/debian/\tbookworm\tmain',
      'Translations\thttp://wrong.example.org/debian/\tbookworm\tmain',
      'Packages\thttp://mirror.example.org/debian-security/\tbookworm-security\tmain',
    ].join('\n');
    expect(debianSources(recipe, targets)).toEqual([
      'deb http://mirror.example.org/debian trixie main',
      'deb http://mirror.example.org/debian trixie-updates main',
      'deb http://mirror.example.org/debian-security trixie-security main',
    ]);
  });

  it('fall back to the public mirror', () => {
    expect(debianSources(recipe, 'Packages\thttp://archive.ubuntu.com/ubuntu/\tnoble\tmain\n')[0]).toBe(
      'deb http://deb.debian.org/debian trixie main',
    );
  });

  it('give versions from file names', () => {
    expect(parseDebName('busybox_1%3a1.37.0-6+b9_amd64.deb')).toEqual(['busybox', '1:1.37.0-6+b9']);
    expect(() => parseDebName('odd.deb')).toThrow('odd.deb');
  });
});

describe('the kernel', () => {
  it('is refused when it is none, or packed in another way', () => {
    expect(() => unpack(Buffer.alloc(0x300))).toThrow('not a bzImage');
    const image = Buffer.alloc(0x1000);
    image.write('HdrS', 0x202, 'latin1');
    expect(() => unpack(image)).toThrow('zstd');
  });

  it('names dependencies and aliases in its modules', () => {
    const data = Buffer.from(
      '\0license=GPL\0alias=virtio:d00000001v*\0depends=net_failover,failover\0name=x\0alias=a\0',
      'latin1',
    );
    expect(moduleInfo(data)).toEqual({ depends: ['net_failover', 'failover'], aliases: ['virtio:d00000001v*', 'a'] });
    expect(moduleInfo(Buffer.from('\0depends=\0', 'latin1'))).toEqual({ depends: [], aliases: [] });
  });
});

describe('files', () => {
  it('of an initramfs are aligned, named and closed by a trailer', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 50 }), fc.stringMatching(/^[a-z]{1,12}$/), (data, path) => {
        const archive = cpio([{ path, kind: 'file', mode: 0o644, data }]);
        const size = Number.parseInt(archive.toString('latin1', 54, 62), 16);
        const nameSize = Number.parseInt(archive.toString('latin1', 94, 102), 16);
        const start = Math.ceil((110 + nameSize) / 4) * 4;
        expect(archive.length % 4).toBe(0);
        expect(archive.toString('latin1', 110, 110 + nameSize)).toBe(`${path}\0`);
        expect(archive.subarray(start, start + size)).toEqual(Buffer.from(data));
        expect(archive.includes('TRAILER!!!')).toBe(true);
      }),
    );
  });

  it('with zeros have holes and the same content', async () => {
    const data = Buffer.alloc(4 * 2 ** 20 + 100);
    data.write('start');
    data.write('end', data.length - 3);
    const path = join(directory, 'sparse');
    await writeSparse(path, data);
    expect((await readFile(path)).equals(data)).toBe(true);
    expect((await stat(path)).blocks * 512).toBeLessThan(64 * 1024);
  });
});
