/** manifest.json of a guest image: what the image is, what it was made of, how to start it. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { errorMessage, hasErrno, InfraletError } from '../base/errors.ts';

export const MANIFEST_FILE = 'manifest.json';

/** Beside the image's files: root of the node's file server for live shares, of the same packages. */
export const SHARE_DIRECTORY = 'share';

/** Beside the image's files: what the disk for clouds is made of besides them, and the disk itself when it was asked for. */
export const DISK_DIRECTORY = 'disk';

/** Raised when a reader of the former version could misunderstand a manifest. */
const FORMAT = 1;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

const file = z.strictObject({
  /** File name in the image's directory. */
  name: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/),
  /** Bytes; for a sparse file its full length. */
  size: z.int().min(1),
  /** Bytes that the file takes on the disk. */
  allocated: z.int().min(0),
  sha256,
});

export type ImageFile = z.output<typeof file>;

export const FILE_ROLES = ['kernel', 'initramfs', 'rootfs', 'scratch'] as const;
export type FileRole = (typeof FILE_ROLES)[number];

const manifestSchema = z.strictObject({
  format: z.literal(FORMAT),
  /** Digest of the recipe, the build code, the agent and Node: what decides whether a build has anything to do. */
  inputDigest: sha256,
  /** Digest over inputDigest and all package versions: the name of this image's content; the agent reports it. */
  imageDigest: sha256,
  /** ISO 8601. */
  builtAt: z.iso.datetime(),
  buildSeconds: z.number().min(0),
  architecture: z.string(),
  suite: z.string(),
  versions: z.strictObject({
    kernel: z.string(),
    containerd: z.string(),
    crun: z.string(),
    node: z.string(),
    agent: z.string(),
  }),
  /** Debian packages whose files are in the image or were used to make it: name → version. */
  packages: z.record(z.string(), z.string()),
  /** Kernel command line for every machine. */
  commandLine: z.string().min(1).max(2000),
  /** Added to it where software emulation runs the processor. */
  commandLineTcg: z.string().max(1000),
  /** Reference of the preloaded pause image. */
  pauseImage: z.string(),
  files: z.strictObject({ kernel: file, initramfs: file, rootfs: file, scratch: file }),
});

export type GuestManifest = z.output<typeof manifestSchema>;

const HINT = 'infralet image build';

/** Reads and checks the manifest of the image in `directory`, and that its files are there with the right sizes. */
export async function readGuestManifest(directory: string): Promise<GuestManifest> {
  const path = join(directory, MANIFEST_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const missing = hasErrno(error, 'ENOENT', 'ENOTDIR');
    throw new InfraletError(
      'FAILED_PRECONDITION',
      missing ? `there is no guest image in ${directory}` : `${path} cannot be read: ${errorMessage(error)}`,
      { hint: HINT, cause: error },
    );
  }
  const manifest = parseGuestManifest(text, path);
  for (const role of FILE_ROLES) await checkFile(directory, manifest.files[role]);
  return manifest;
}

/** `source` names the manifest in errors. */
export function parseGuestManifest(text: string, source: string): GuestManifest {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `${source} is not JSON: ${errorMessage(error)}`, {
      hint: HINT,
      cause: error,
    });
  }
  const result = manifestSchema.safeParse(value);
  if (result.success) return result.data;
  throw new InfraletError(
    'FAILED_PRECONDITION',
    `${source} is not a manifest that this version understands: ${z.prettifyError(result.error).replaceAll('\n', ' ')}`,
    { hint: HINT },
  );
}

async function checkFile(directory: string, { name, size }: ImageFile): Promise<void> {
  const path = join(directory, name);
  let found: number;
  try {
    found = (await stat(path)).size;
  } catch (error) {
    throw new InfraletError('FAILED_PRECONDITION', `the guest image in ${directory} lacks ${name}`, {
      hint: HINT,
      cause: error,
    });
  }
  if (found !== size) {
    throw new InfraletError('FAILED_PRECONDITION', `${path} has ${found} bytes; the manifest says ${size}`, {
      hint: HINT,
    });
  }
}
