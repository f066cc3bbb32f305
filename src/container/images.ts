/** Brings a container's image into its machine: containerd there pulls it by digest from the node, once per machine. */
import { InfraletError } from '../base/errors.ts';
import type { SandboxId } from '../base/ids.ts';
import { KeyedLock } from '../base/keyed-lock.ts';
import type { AgentChannel } from '../guest/channel.ts';
import type { ImageRecord, ImageService } from '../image/service.ts';

/** Large images over a slow emulated disk. */
const PULL_MS = 1_800_000;

export class GuestImages {
  readonly #present = new Map<SandboxId, Set<string>>();
  readonly #lock = new KeyedLock<SandboxId>();
  readonly #images: ImageService;

  constructor(images: ImageService) {
    this.#images = images;
  }

  async ensure(
    sandboxId: SandboxId,
    image: ImageRecord,
    channel: Pick<AgentChannel, 'cri'>,
    signal: AbortSignal,
  ): Promise<void> {
    // Before any waiting: from here on the image may be removed from the node, and the machine still gets it.
    this.#images.grant(sandboxId, image.id);
    using _held = await this.#lock.acquire(sandboxId, signal);
    const present = this.#present.get(sandboxId) ?? new Set();
    if (present.has(image.id)) return;
    const options = { signal, timeoutMs: PULL_MS };
    // Not asked whether it is there: after a restart of the daemon it may be, and pulling it again moves no layer.
    const reference = this.#images.guestReference(image);
    const { imageRef } = await channel.cri('PullImage', { image: { image: reference } }, options);
    if (imageRef !== image.id) {
      throw new InfraletError('DATA_LOSS', `the machine made image ${imageRef} of ${image.id}`, {
        context: { sandboxId },
      });
    }
    this.#present.set(sandboxId, present.add(image.id));
  }

  forget(sandboxId: SandboxId): void {
    this.#present.delete(sandboxId);
    this.#images.revoke(sandboxId);
  }
}
