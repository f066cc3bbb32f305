/**
 * The guest image's disk as an AMI: blocks that are not empty go straight into a snapshot (EBS direct APIs), and the snapshot is
 * registered. No machine, no bucket and no role of the import service is needed.
 */
import { createHash } from 'node:crypto';
import { CompleteSnapshotCommand, EBSClient, PutSnapshotBlockCommand, StartSnapshotCommand } from '@aws-sdk/client-ebs';
import {
  DeleteSnapshotCommand,
  DescribeImagesCommand,
  DescribeSnapshotsCommand,
  EC2Client,
  RegisterImageCommand,
  type Snapshot,
  type Tag,
} from '@aws-sdk/client-ec2';
import PQueue from 'p-queue';
import { z } from 'zod';
import { filledBlocks } from '../../src/base/disk-blocks.ts';
import { errorMessage, InfraletError } from '../../src/base/errors.ts';
import { systemClock } from '../../src/base/time.ts';
import { duration, type PublishedImage, type PublishRequest, parseOver } from '../../src/cloud/contract.ts';

/** The only size that EBS takes. */
const BLOCK = 512 * 1024;
const GIB = 2 ** 30;
const ROOT_DEVICE = '/dev/xvda';
/** The tag by which an upload that was cut off is found again. */
const IMAGE_TAG = 'infralet.dev/image';
/** Minutes without a block after which EBS gives a snapshot up by itself: a publisher that was killed leaves nothing for long. */
const ABANDON_MINUTES = 60;

const schema = z.object({
  region: z.string().min(1),
  endpoint: z.url().optional(),
  ebsEndpoint: z.url().optional(),
  /** Blocks on their way at once. An account and region may put 1,000 blocks per second. */
  uploads: z.coerce.number().int().min(1).max(256).default(32),
  /** Between two looks at a snapshot that is being completed, and how long that may take. */
  snapshotEvery: duration('5s'),
  snapshotTimeout: duration('30m'),
  /** The SDK repeats calls that are throttled or fail for now, with growing pauses. */
  attempts: z.coerce.number().int().min(1).default(8),
});

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

/** @param credentials default: the SDK's own chain. */
export async function publish(
  section: unknown,
  disk: PublishRequest,
  signal: AbortSignal,
  credentials?: Credentials,
): Promise<PublishedImage> {
  const config = parseOver('aws', schema, section, disk.settings);
  const common = {
    region: config.region,
    maxAttempts: config.attempts,
    ...(credentials === undefined ? {} : { credentials }),
  };
  const ec2 = new EC2Client({ ...common, ...(config.endpoint === undefined ? {} : { endpoint: config.endpoint }) });
  const ebs = new EBSClient({
    ...common,
    ...(config.ebsEndpoint === undefined ? {} : { endpoint: config.ebsEndpoint }),
  });
  try {
    return await new Publisher(ec2, ebs, config, disk, signal).run();
  } finally {
    ec2.destroy();
    ebs.destroy();
  }
}

class Publisher {
  readonly #ec2: EC2Client;
  readonly #ebs: EBSClient;
  readonly #config: z.output<typeof schema>;
  readonly #disk: PublishRequest;
  readonly #signal: AbortSignal;

  constructor(
    ec2: EC2Client,
    ebs: EBSClient,
    config: z.output<typeof schema>,
    disk: PublishRequest,
    signal: AbortSignal,
  ) {
    this.#ec2 = ec2;
    this.#ebs = ebs;
    this.#config = config;
    this.#disk = disk;
    this.#signal = signal;
  }

  async run(): Promise<PublishedImage> {
    const { name, onProgress } = this.#disk;
    const present = await this.#ec2.send(
      new DescribeImagesCommand({ Owners: ['self'], Filters: [{ Name: 'name', Values: [name] }] }),
      this.#options,
    );
    const existing = present.Images?.[0]?.ImageId;
    if (existing !== undefined) return { id: existing, setting: 'imageId', existed: true };
    const earlier = await this.#earlier();
    const id = earlier?.SnapshotId ?? (await this.#start());
    try {
      if (earlier?.State !== 'completed') {
        onProgress(`snapshot ${id}${earlier ? ', begun before' : ''}`);
        await this.#upload(id);
        await this.#completed(id);
      }
      const image = await this.#register(id);
      return { id: image, setting: 'imageId', existed: false };
    } catch (error) {
      throw await this.#giveUp(id, error);
    }
  }

  get #options(): { readonly abortSignal: AbortSignal } {
    return { abortSignal: this.#signal };
  }

  get #tags(): Tag[] {
    return [
      ...Object.entries({ ...this.#disk.tags, [IMAGE_TAG]: this.#disk.name }).map(([Key, Value]) => ({ Key, Value })),
      { Key: 'Name', Value: this.#disk.name },
    ];
  }

  /** The snapshot of a publisher that was killed: its blocks are put once more, which costs nothing. */
  async #earlier(): Promise<Snapshot | undefined> {
    const { Snapshots } = await this.#ec2.send(
      new DescribeSnapshotsCommand({
        OwnerIds: ['self'],
        Filters: [
          { Name: `tag:${IMAGE_TAG}`, Values: [this.#disk.name] },
          { Name: 'status', Values: ['pending', 'completed'] },
        ],
      }),
      this.#options,
    );
    return Snapshots?.find(({ State }) => State === 'completed') ?? Snapshots?.[0];
  }

  async #start(): Promise<string> {
    const { SnapshotId } = await this.#ebs.send(
      new StartSnapshotCommand({
        VolumeSize: this.#disk.size / GIB,
        Description: this.#disk.description,
        Tags: this.#tags,
        Timeout: ABANDON_MINUTES,
      }),
      this.#options,
    );
    if (SnapshotId === undefined) throw new InfraletError('INTERNAL', 'EBS began a snapshot without an id');
    return SnapshotId;
  }

  async #upload(id: string): Promise<void> {
    const { file, size, onProgress } = this.#disk;
    const queue = new PQueue({ concurrency: this.#config.uploads });
    const failed = new AbortController();
    const digests = new Map<number, Buffer>();
    let sent = 0;
    let shown = 0;
    for await (const { index, data } of filledBlocks(file, BLOCK)) {
      await queue.onSizeLessThan(this.#config.uploads);
      if (failed.signal.aborted) break;
      this.#signal.throwIfAborted();
      const digest = createHash('sha256').update(data).digest();
      digests.set(index, digest);
      queue
        .add(async () => {
          await this.#ebs.send(
            new PutSnapshotBlockCommand({
              SnapshotId: id,
              BlockIndex: index,
              BlockData: data,
              DataLength: data.length,
              Checksum: digest.toString('base64'),
              ChecksumAlgorithm: 'SHA256',
            }),
            { abortSignal: AbortSignal.any([this.#signal, failed.signal]) },
          );
          sent += 1;
          const percent = Math.floor(((index + 1) * BLOCK * 100) / size);
          if (percent >= shown + 10) {
            shown = percent - (percent % 10);
            onProgress(`${shown} % of the disk, ${Math.round((sent * BLOCK) / 2 ** 20)} MiB sent`);
          }
        })
        .catch((error: unknown) => failed.abort(error));
    }
    await queue.onIdle();
    this.#signal.throwIfAborted();
    if (failed.signal.aborted) throw failed.signal.reason;
    const inOrder = [...digests].sort(([a], [b]) => a - b).map(([, digest]) => digest);
    await this.#ebs.send(
      new CompleteSnapshotCommand({
        SnapshotId: id,
        ChangedBlocksCount: inOrder.length,
        // Over all blocks, so that EBS itself finds out if one is missing or another's.
        Checksum: createHash('sha256').update(Buffer.concat(inOrder)).digest('base64'),
        ChecksumAlgorithm: 'SHA256',
        ChecksumAggregationMethod: 'LINEAR',
      }),
      this.#options,
    );
    onProgress(`all ${sent} blocks are there; EBS completes the snapshot`);
  }

  async #completed(id: string): Promise<void> {
    const deadline = performance.now() + this.#config.snapshotTimeout;
    for (;;) {
      const { Snapshots } = await this.#ec2.send(new DescribeSnapshotsCommand({ SnapshotIds: [id] }), this.#options);
      const [snapshot] = Snapshots ?? [];
      if (snapshot?.State === 'completed') return;
      if (snapshot?.State === 'error') {
        throw new InfraletError(
          'UNAVAILABLE',
          `EBS cannot complete ${id}: ${snapshot.StateMessage ?? 'no reason given'}`,
        );
      }
      if (performance.now() > deadline) {
        throw new InfraletError('DEADLINE_EXCEEDED', `${id} is not complete after ${this.#config.snapshotTimeout} ms`);
      }
      await systemClock.sleep(this.#config.snapshotEvery, this.#signal);
    }
  }

  async #register(snapshotId: string): Promise<string> {
    const { ImageId } = await this.#ec2.send(
      new RegisterImageCommand({
        Name: this.#disk.name,
        Description: this.#disk.description,
        Architecture: 'x86_64',
        VirtualizationType: 'hvm',
        BootMode: 'uefi-preferred',
        EnaSupport: true,
        ImdsSupport: 'v2.0',
        RootDeviceName: ROOT_DEVICE,
        BlockDeviceMappings: [
          {
            DeviceName: ROOT_DEVICE,
            Ebs: { SnapshotId: snapshotId, VolumeType: 'gp3', DeleteOnTermination: true },
          },
        ],
        TagSpecifications: [{ ResourceType: 'image', Tags: this.#tags }],
      }),
      this.#options,
    );
    if (ImageId === undefined) throw new InfraletError('INTERNAL', 'EC2 registered an image without an id');
    return ImageId;
  }

  /** The snapshot costs as long as it is there: it goes, also when the user has ended the command. */
  async #giveUp(id: string, error: unknown): Promise<unknown> {
    try {
      await this.#ec2.send(new DeleteSnapshotCommand({ SnapshotId: id }), { abortSignal: AbortSignal.timeout(30_000) });
      this.#disk.onProgress(`snapshot ${id} is deleted`);
      return error;
    } catch (left) {
      return new InfraletError('UNAVAILABLE', `${errorMessage(error)}; snapshot ${id} is left: ${errorMessage(left)}`, {
        cause: error,
        hint: `aws ec2 delete-snapshot --snapshot-id ${id}, or publish again: the snapshot is used then`,
      });
    }
  }
}
