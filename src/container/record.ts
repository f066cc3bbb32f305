/** What the journal holds of a container. */
import { z } from 'zod';
import { parseContainerId, parseSandboxId } from '../base/ids.ts';
import { resourcesSchema } from './resources.ts';
import { CONTAINER_STATES } from './service.ts';

const userSchema = z.object({ uid: z.string(), gid: z.string(), supplementalGroups: z.array(z.string()) });

/** Who a container's first process is at its start, as decimal numbers. */
export type ContainerUserRecord = Readonly<z.output<typeof userSchema>>;

const schema = z.object({
  id: z.string().transform(parseContainerId),
  sandboxId: z.string().transform(parseSandboxId),
  /** containerd's id in the machine; empty until it was made there. */
  guestId: z.string(),
  imageId: z.string(),
  imageRef: z.string(),
  state: z.enum(CONTAINER_STATES),
  /** Null until it was made in the machine, where the image's own users are read. */
  user: userSchema.nullable().default(null),
  /** Times in nanoseconds since the epoch, as the guest's containerd reports them; "0": not yet. */
  createdAt: z.string(),
  startedAt: z.string(),
  finishedAt: z.string(),
  exitCode: z.number(),
  reason: z.string(),
  message: z.string(),
  /** Resources as updates have left them; undefined: as its configuration says. */
  resources: resourcesSchema.optional(),
  /** All of its log is on the node. */
  logDone: z.boolean(),
  /** Removal has begun: it is no longer listed, and a crash must not bring it back. */
  removing: z.boolean(),
});

export type ContainerRecord = Readonly<z.output<typeof schema>>;

/** Reads a journal row; throws when it was damaged. */
export function parseContainerRecord(value: unknown): ContainerRecord {
  return schema.parse(value);
}
