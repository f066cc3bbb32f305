/** The guest image's disk as an image of the project: packed, uploaded to a bucket, taken from there, and removed from it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { basename, dirname } from 'node:path';
import { createGzip } from 'node:zlib';
import type { protos } from '@google-cloud/compute';
import { GoogleAuth } from 'google-auth-library';
import { z } from 'zod';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import { abortable } from '../../src/base/keyed-lock.ts';
import { duration, type PublishedImage, type PublishRequest, parseOver } from '../../src/cloud/contract.ts';
import { closePublishing, createPublishing, type Publishing } from './clients.ts';
import { httpError, OperationError } from './errors.ts';
import { type Bucket, removeObject, upload } from './upload.ts';

type Operation = protos.google.cloud.compute.v1.IOperation;

const STORAGE = 'https://storage.googleapis.com';
const SCOPE = 'https://www.googleapis.com/auth/devstorage.read_write';
/** Images of one family replace one another: a configuration may name the family. */
const FAMILY = 'infralet-guest';

const schema = z.object({
  project: z.string().min(1),
  bucket: z.string().min(1),
  endpoint: z.url().optional(),
  storageEndpoint: z.url().optional(),
  /** Tries of one piece of 8 MiB, and milliseconds for one request with it. */
  uploadAttempts: z.coerce.number().int().min(1).default(8),
  uploadTimeout: duration('2m'),
});

export async function publish(section: unknown, disk: PublishRequest, signal: AbortSignal): Promise<PublishedImage> {
  const config = parseOver('gcp', schema, section, disk.settings);
  const clients = createPublishing(config);
  try {
    const { project } = config;
    const id = `projects/${project}/global/images/${disk.name}`;
    if (await exists(clients, project, disk.name, signal)) return { id, setting: 'image', existed: true };
    const bucket = openBucket(config);
    const object = `${disk.name}.tar.gz`;
    let failure: { readonly error: unknown } | undefined;
    try {
      disk.onProgress(`packing and uploading the disk to gs://${config.bucket}/${object}`);
      const bytes = await upload(bucket, object, packed(disk, signal), signal);
      disk.onProgress(`${Math.round(bytes / 2 ** 20)} MiB are there; Compute Engine makes the image`);
      await insert(clients, project, `${STORAGE}/${config.bucket}/${object}`, disk, signal);
    } catch (error) {
      failure = { error };
    }
    await cleanUp(bucket, object, failure, disk);
    return { id, setting: 'image', existed: false };
  } finally {
    await closePublishing(clients);
  }
}

/** The object is of no use any more, whatever has happened. */
async function cleanUp(
  bucket: Bucket,
  object: string,
  failure: { readonly error: unknown } | undefined,
  { onProgress }: PublishRequest,
): Promise<void> {
  try {
    await removeObject(bucket, object, AbortSignal.timeout(30_000));
  } catch (left) {
    const what = `gs://${bucket.name}/${object} may be left: ${errorMessage(left)}`;
    if (!failure) return onProgress(what);
    throw new InfraletError('UNAVAILABLE', `${errorMessage(failure.error)}; ${what}`, {
      cause: failure.error,
      hint: `gcloud storage rm gs://${bucket.name}/${object}`,
    });
  }
  if (failure) throw failure.error;
}

async function exists({ images }: Publishing, project: string, image: string, signal: AbortSignal): Promise<boolean> {
  try {
    await abortable(images.get({ project, image }), signal);
    return true;
  } catch (error) {
    if (httpError(error).status === 404) return false;
    throw error;
  }
}

async function insert(
  { images, operations }: Publishing,
  project: string,
  source: string,
  disk: PublishRequest,
  signal: AbortSignal,
): Promise<void> {
  const [begun] = await abortable(
    images.insert({
      project,
      imageResource: {
        name: disk.name,
        description: disk.description,
        family: FAMILY,
        architecture: 'X86_64',
        rawDisk: { source, containerType: 'TAR' },
        guestOsFeatures: ['UEFI_COMPATIBLE', 'GVNIC', 'VIRTIO_SCSI_MULTIQUEUE'].map((type) => ({ type })),
        labels: labels(disk.tags),
      },
    }),
    signal,
  );
  let operation = begun.latestResponse as Operation;
  while (operation.status !== 'DONE') {
    [operation] = await abortable(operations.wait({ project, operation: operation.name ?? '' }), signal);
  }
  const [error] = operation.error?.errors ?? [];
  if (error) throw new OperationError(error.code ?? 'UNKNOWN', error.message ?? 'the image cannot be made');
}

/** Keys and values as labels allow them. */
function labels(tags: Readonly<Record<string, string>>): Record<string, string> {
  const allowed = (text: string): string =>
    text
      .toLowerCase()
      .replaceAll(/[^a-z0-9_-]/g, '-')
      .slice(0, 63);
  return Object.fromEntries(Object.entries(tags).map(([key, value]) => [allowed(key), allowed(value)]));
}

/** As Compute Engine wants it: one sparse file disk.raw in a tar archive of GNU's old format, packed by gzip. */
async function* packed(disk: PublishRequest, signal: AbortSignal): AsyncGenerator<Buffer> {
  const tar = spawn(
    'tar',
    [
      ...['--create', '--sparse', '--format=oldgnu', '--owner=0', '--group=0', '--mtime=@0', '--mode=0644'],
      ...[`--transform=s|.*|disk.raw|`, `--directory=${dirname(disk.file)}`, basename(disk.file)],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'], signal },
  );
  const ended = once(tar, 'close') as Promise<[number | null]>;
  // Told below; here it must not be taken for unhandled.
  ended.catch(() => undefined);
  let complaint = '';
  tar.stderr.on('data', (chunk: Buffer) => {
    complaint = `${complaint}${chunk.toString()}`.slice(-1000);
  });
  try {
    for await (const chunk of tar.stdout.pipe(createGzip({ level: 6 }))) yield chunk as Buffer;
    const [code] = await ended;
    if (code !== 0) throw new InfraletError('INTERNAL', `tar failed with exit code ${code}: ${complaint.trim()}`);
  } finally {
    tar.kill('SIGKILL');
  }
}

function openBucket(config: z.output<typeof schema>): Bucket {
  const base = config.storageEndpoint ?? STORAGE;
  const auth = new GoogleAuth({ scopes: SCOPE });
  return {
    base,
    name: config.bucket,
    // Nothing secret goes over a plain connection.
    authorize: async (url) => (url.startsWith('https:') ? await auth.getRequestHeaders(url) : new Headers()),
    attempts: config.uploadAttempts,
    timeoutMs: config.uploadTimeout,
  };
}
