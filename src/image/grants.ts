/**
 * Which sandbox may read which images. In memory: after a restart the sandboxes grant again what they need.
 * A granted image stays readable until its grant ends, also when it was removed from the store meanwhile; its blobs go then.
 */
import type { Digest, SandboxId } from '../base/ids.ts';
import type { BlobStore } from './blob-store.ts';
import type { StoredImage } from './image-index.ts';

/** Registry name under which the guest's containerd knows this node; it never resolves in DNS. */
export const GUEST_REGISTRY = 'images.infralet.internal';

interface Grant {
  readonly image: StoredImage;
  readonly hold: Disposable;
}

export class Grants {
  readonly #blobs: BlobStore;
  /** By sandbox, then by manifest: a repeated pull may give an id another manifest, and both are in use then. */
  readonly #grants = new Map<SandboxId, Map<Digest, Grant>>();

  constructor(blobs: BlobStore) {
    this.#blobs = blobs;
  }

  add(sandboxId: SandboxId, image: StoredImage): void {
    const grants = this.#grants.get(sandboxId) ?? new Map<Digest, Grant>();
    this.#grants.set(sandboxId, grants);
    if (grants.has(image.manifest)) return;
    grants.set(image.manifest, { image, hold: this.#blobs.hold(image.blobs.map((blob) => blob.digest)) });
  }

  end(sandboxId: SandboxId): void {
    for (const { hold } of this.#grants.get(sandboxId)?.values() ?? []) hold[Symbol.dispose]();
    this.#grants.delete(sandboxId);
  }

  /** Images of the repository `name` that the sandbox may read. */
  images(sandboxId: SandboxId, name: string): readonly StoredImage[] {
    const grants = [...(this.#grants.get(sandboxId)?.values() ?? [])];
    return grants.map(({ image }) => image).filter((image) => guestRepository(image.id) === name);
  }
}

/** Half of the id: enough to be unique, short enough to read. */
export function guestRepository(id: Digest): string {
  return id.slice('sha256:'.length, 'sha256:'.length + 32);
}
