/** The guest image that tests boot: the one that `npm test` has built, or one built here once and kept. */
import { mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import { hasErrno } from '../../src/base/errors.ts';
import { buildGuestImage } from '../../src/guest-image/build.ts';
import { diskOf } from '../../src/guest-image/disk.ts';

const CACHE = fileURLToPath(new URL('../../.cache', import.meta.url));
/** Names an image to be taken as it is, for work on other parts while the image's sources change. */
const OVERRIDE = 'INFRALET_GUEST_IMAGE';

/** Building takes a minute or two, more on a busy host. */
export const GUEST_IMAGE_TIMEOUT_MS = 900_000;

let image: Promise<string> | undefined;

/** Directory of an image made of the present sources. Takes a minute or two when there is none yet. */
export async function guestImage(): Promise<string> {
  image ??= find();
  return await image;
}

/** The same image as one disk for clouds. */
export async function guestDisk(): Promise<string> {
  const { file } = await diskOf({
    directory: await guestImage(),
    onProgress: () => undefined,
    signal: AbortSignal.timeout(GUEST_IMAGE_TIMEOUT_MS),
  });
  return file;
}

async function find(): Promise<string> {
  const given = process.env[OVERRIDE];
  if (given !== undefined && given !== '') return given;
  const directory = (await setUp()) ?? join(CACHE, 'guest');
  await mkdir(dirname(directory), { recursive: true });
  await buildGuestImage({
    directory,
    onProgress: () => undefined,
    signal: AbortSignal.timeout(GUEST_IMAGE_TIMEOUT_MS),
  });
  return directory;
}

/** Where the set-up of `npm test` has put the image. */
async function setUp(): Promise<string | undefined> {
  try {
    const stamp: unknown = JSON.parse(await readFile(join(CACHE, 'guest-image.json'), 'utf8'));
    return z.object({ directory: z.string() }).parse(stamp).directory;
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    throw error;
  }
}
