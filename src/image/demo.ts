/** The image of the first pod: the host's static busybox. Needs no registry and no network. */
import { readFile } from 'node:fs/promises';
import { InfraletError } from '../base/errors.ts';
import { run } from '../base/process.ts';
import { type LayerEntry, LayoutWriter } from './layout-writer.ts';
import { hostPlatform } from './platform.ts';
import type { ImageRecord, ImageService } from './service.ts';

export const DEMO_IMAGE = 'infralet.internal/demo:1';

const BUSYBOX = '/bin/busybox';

/** Root file system around busybox: its applets as links, users, and the usual directories. */
export async function busyboxEntries(signal: AbortSignal): Promise<readonly LayerEntry[]> {
  const data = await readFile(BUSYBOX).catch((cause: unknown) => {
    throw new InfraletError('FAILED_PRECONDITION', `${BUSYBOX} is missing`, {
      hint: 'apt-get install busybox-static',
      cause,
    });
  });
  const applets = (await run(BUSYBOX, ['--list'], { signal, timeoutMs: 10_000 })).trim().split('\n');
  const text = (path: string, content: string): LayerEntry => ({
    type: 'file',
    path,
    data: Buffer.from(content),
    mode: 0o644,
  });
  const directory = (path: string, mode = 0o755): LayerEntry => ({ type: 'directory', path, mode });
  return [
    ...['bin/', 'etc/', 'home/', 'proc/', 'sys/', 'dev/', 'usr/', 'var/', 'var/www/'].map((path) => directory(path)),
    directory('root/', 0o700),
    directory('tmp/', 0o1777),
    text('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/sh\n'),
    text('etc/group', 'root:x:0:\nstaff:x:50:www-data\nwww-data:x:33:\n'),
    { type: 'file', path: 'bin/busybox', data, mode: 0o755 },
    ...applets
      .filter((name) => name !== 'busybox')
      .map((name): LayerEntry => ({ type: 'symlink', path: `bin/${name}`, target: 'busybox' })),
  ];
}

/** Writes the demo image as an OCI layout into `directory`; resolves with the source for `ImageService.load`. */
export async function makeDemoImage(directory: string, signal: AbortSignal): Promise<string> {
  const writer = await LayoutWriter.create(directory);
  const layer = await writer.layer(await busyboxEntries(signal), 'gzip');
  const { manifest } = await writer.image({
    layers: [layer],
    platform: hostPlatform(),
    config: { Cmd: ['/bin/sh'], Env: ['PATH=/bin'], WorkingDir: '/' },
  });
  await writer.finish([manifest]);
  return `oci:${directory}`;
}

/** Makes the demo image in `directory` and loads it; a second call finds everything in place. */
export async function loadDemoImage(
  images: Pick<ImageService, 'load'>,
  directory: string,
  signal: AbortSignal,
): Promise<ImageRecord> {
  const [record] = await images.load(await makeDemoImage(directory, signal), [DEMO_IMAGE], signal);
  if (!record) throw new InfraletError('INTERNAL', 'the demo image was not loaded');
  return record;
}
