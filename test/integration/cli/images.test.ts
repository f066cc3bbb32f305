import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { InfraletError } from '../../../src/base/errors.ts';
import { parseDigest } from '../../../src/base/ids.ts';
import type { ImageRecord } from '../../../src/image/service.ts';
import { type CliDaemon, cliDaemon } from '../../support/cli-daemon.ts';
import { startCriStub } from '../../support/cri-stub.ts';

const IMAGE_ID = `sha256:${'b'.repeat(64)}`;
const record: ImageRecord = {
  id: parseDigest(IMAGE_ID),
  manifest: parseDigest(IMAGE_ID),
  repoTags: ['registry.example/nginx:1'],
  repoDigests: [],
  size: 2048,
  uid: undefined,
  username: '',
  pinned: false,
  annotations: {},
};
let daemon: CliDaemon;
beforeEach(async () => {
  daemon = await cliDaemon();
});
afterEach(async () => await daemon[Symbol.asyncDispose]());

const stub = async () =>
  await startCriStub(daemon.socket, {
    ListImages: () => ({ images: [{ id: IMAGE_ID, repoTags: ['registry.example/nginx:1'], size: '1536' }] }),
    ImageStatus: ({ image }) => ({ image: image?.image === 'registry.example/nginx:1' ? { id: IMAGE_ID } : null }),
    RemoveImage: () => ({}),
  });

describe('image list and rm', () => {
  it('lists names, ids and sizes', async () => {
    await using _cri = await stub();
    const shown = await daemon.run('image', 'list');
    expect(shown.out.split('\n')[1]).toMatch(/^registry\.example\/nginx:1 +b{13} +1\.5 KiB$/);
  });

  it('removes what is there and refuses what is not', async () => {
    await using cri = await stub();
    await daemon.run('image', 'rm', 'registry.example/nginx:1');
    expect(cri.calls).toEqual(['ImageStatus', 'RemoveImage']);
    await expect(daemon.run('image', 'rm', 'absent:1')).rejects.toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining('absent:1'),
    });
    expect(cri.calls).toEqual(['ImageStatus', 'RemoveImage', 'ImageStatus']);
  });
});

describe('image load', () => {
  it('loads by absolute path with the given names', async () => {
    const loads: { readonly source: string; readonly names: readonly string[] }[] = [];
    await using _admin = await daemon.serve({
      images: {
        load: async (source, names) => {
          loads.push({ source, names });
          if (source.includes('broken')) throw new InfraletError('INVALID_ARGUMENT', 'no OCI layout');
          return [record];
        },
      },
    });
    const shown = await daemon.run('image', 'load', 'oci:some/layout', '--name', 'a:1');
    expect(loads[0]).toEqual({ source: `oci:${join(process.cwd(), 'some/layout')}`, names: ['a:1'] });
    expect(shown.out).toBe('loaded registry.example/nginx:1 (bbbbbbbbbbbbb, 2.0 KiB)\n');
    await expect(daemon.run('image', 'load', 'broken.tar')).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: expect.stringContaining('no OCI layout'),
    });
  });
});
