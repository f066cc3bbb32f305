/**
 * Where a container's log goes on. Its bytes are counted from its first one on (the offset); the node's present file holds
 * those from `base` on. So the offset is `base` + the file's size, and no record of it can disagree with the file. What the
 * journal holds is what the file cannot say: which file it is, since the kubelet renames it, and how far the guest has been
 * told to forget.
 */
import { z } from 'zod';

const schema = z.object({
  /** Offset of the first byte of the node's file; negative when the file was there before the container. */
  base: z.number(),
  /** Which file: device and inode. */
  file: z.string(),
  /** Everything before this offset is on the node's disk for good; the guest may have let go of it. */
  acked: z.number(),
});

export type LogPosition = Readonly<z.output<typeof schema>>;

/** Reads a journal row; throws when it was damaged. */
export function parsePosition(value: unknown): LogPosition {
  return schema.parse(value);
}

/** A file that is open for appending. */
interface Found {
  readonly file: string;
  readonly size: number;
}

/**
 * The position for the file that the log's path leads to now. Nothing was written to it before the result is in the journal,
 * so that this may be cut off and repeated at any point. Pure.
 *
 * @param earlier size of the file that the journal names where that is another one and still there, wherever it was renamed to
 */
export function settle(before: LogPosition | undefined, now: Found, earlier: number | undefined): LogPosition {
  if (!before) return { base: -now.size, file: now.file, acked: 0 };
  if (before.file === now.file) {
    // Somebody else has shortened it. The guest has nothing before `acked` any more.
    if (before.base + now.size < before.acked) return { ...before, base: before.acked - now.size };
    return before;
  }
  // A file that is gone took its bytes along; those not acknowledged come again, and nobody has them twice.
  const offset = earlier === undefined ? before.acked : Math.max(before.base + earlier, before.acked);
  return { base: offset - now.size, file: now.file, acked: offset };
}
