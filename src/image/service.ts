/** The node's image store as the rest of the daemon sees it. */
import type { Duplex } from 'node:stream';
import type { Digest, SandboxId } from '../base/ids.ts';

export interface ImageRecord {
  /** Digest of the image's configuration: the CRI's image id. */
  readonly id: Digest;
  /** Digest of the platform's manifest; what guests pull. */
  readonly manifest: Digest;
  /** "registry/name:tag", normalised with registry and tag. */
  readonly repoTags: readonly string[];
  /** "registry/name@sha256:…": digest of what the tag pointed to (an index where there was one). */
  readonly repoDigests: readonly string[];
  /** Bytes of manifest, configuration and (compressed) layers. */
  readonly size: number;
  /** User of the configuration: number, or a name; both undefined when it names none. */
  readonly uid: number | undefined;
  readonly username: string;
  readonly pinned: boolean;
  readonly annotations: Readonly<Record<string, string>>;
}

/** CRI AuthConfig, as far as given; empty strings mean absent. */
export interface RegistryAuth {
  readonly username: string;
  readonly password: string;
  readonly auth: string;
  readonly serverAddress: string;
  readonly identityToken: string;
  readonly registryToken: string;
}

export interface ImageFilesystem {
  readonly mountpoint: string;
  readonly usedBytes: number;
  readonly inodesUsed: number;
}

export interface ImageService {
  /** Fetches an image with the request's credentials; resolves with its record. Equal pulls share the work. */
  pull(reference: string, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<ImageRecord>;
  /** Takes an OCI layout directory ("oci:DIR[:TAG]") or an OCI or Docker archive file. */
  load(source: string, names: readonly string[], signal: AbortSignal): Promise<readonly ImageRecord[]>;
  /** By id (also a unique prefix of at least 12 digits), by tag or by repo digest; from memory. */
  find(reference: string): ImageRecord | undefined;
  list(): readonly ImageRecord[];
  /**
   * Removes the whole image with all its names, by any name that `find` takes: the CRI has no untagging
   * (https://github.com/kubernetes/kubernetes/pull/135710). Succeeds on the absent.
   */
  remove(reference: string, signal: AbortSignal): Promise<void>;
  /** The image's configuration (an OCI image config), for people. Throws NOT_FOUND when the image is not here. */
  configuration(id: Digest): Promise<unknown>;
  usage(signal: AbortSignal): Promise<ImageFilesystem>;

  /**
   * Lets a sandbox's machine read the image's blobs until `revoke`, also when the image is removed meanwhile; idempotent. In
   * memory: grant again after a restart. Throws NOT_FOUND for an image that is not here.
   */
  grant(sandboxId: SandboxId, image: Digest): void;
  /** Ends all grants of a sandbox. */
  revoke(sandboxId: SandboxId): void;
  /** Name under which the guest's containerd pulls a granted image through its tunnel. */
  guestReference(image: ImageRecord): string;
  /** Answers one connection of the guest's containerd (registry protocol, read only). */
  serveGuest(sandboxId: SandboxId, socket: Duplex): void;
}
