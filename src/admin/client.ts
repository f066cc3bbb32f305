/** The command line's side of the admin service. */
import { resolve } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { Check } from '../cloud/contract.ts';
import type { LoadedImage__Output } from '../gen/infralet/admin/v1/LoadedImage.ts';
import type { Template__Output } from '../gen/infralet/admin/v1/Template.ts';
import type { PodFootprint } from '../sandbox/placement.ts';
import { ORPHAN_KINDS, type Orphan, type RemovalResult } from '../sandbox/sweeper.ts';
import { adminSocket, loadAdmin } from './protocol.ts';
import { type CallLimits, callUnary } from './unary.ts';

const description = z.record(z.string(), z.unknown());
const check = z.object({ name: z.string(), ok: z.boolean(), detail: z.string(), fix: z.string().optional() });
const orphan = z.object({
  kind: z.enum(ORPHAN_KINDS),
  id: z.string(),
  sandboxId: z.string(),
  ageMs: z.number(),
  pricePerHour: z.number().nullable(),
});
const removal = z.object({
  kind: z.enum(ORPHAN_KINDS),
  id: z.string(),
  outcome: z.enum(['removed', 'young', 'gone', 'failed']),
  reason: z.string(),
});
type Description = Readonly<z.output<typeof description>>;

/** Thousands of sandboxes in one answer. */
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

export interface AdminClient extends Disposable {
  /** `source`: oci:DIR[:TAG] or an archive file; relative paths are those of this process. */
  loadImage(source: string, names: readonly string[], limits: CallLimits): Promise<readonly LoadedImage__Output[]>;
  /** All sandboxes, the newest first. */
  list(limits: CallLimits): Promise<readonly Description[]>;
  /** Pools of machines that wait for pods. */
  pools(limits: CallLimits): Promise<readonly Description[]>;
  describe(sandboxId: string, limits: CallLimits): Promise<Description>;
  /** @param pod a sandbox's id or a prefix of it, a pod's uid, name or NAMESPACE/NAME. */
  why(pod: string, limits: CallLimits): Promise<Description>;
  /** The checks of the daemon's provider. */
  doctor(limits: CallLimits): Promise<readonly Check[]>;
  templates(limits: CallLimits): Promise<readonly Template__Output[]>;
  /** Resolves when it is ready. */
  buildTemplate(limits: CallLimits): Promise<Template__Output>;
  removeTemplate(id: string, limits: CallLimits): Promise<void>;
  /** What machine a pod would get. */
  explainSize(pod: PodFootprint, limits: CallLimits): Promise<Description>;
  /** What carries the node's name and belongs to no sandbox. */
  orphans(limits: CallLimits): Promise<readonly Orphan[]>;
  removeOrphans(orphans: readonly Pick<Orphan, 'kind' | 'id'>[], limits: CallLimits): Promise<readonly RemovalResult[]>;
  /** Resolves with the disk's serial. @param pod as with `why`. */
  attachVolume(pod: string, volume: string, limits: CallLimits): Promise<string>;
  detachVolume(pod: string, volume: string, limits: CallLimits): Promise<void>;
}

/** Connects with the first call. */
export function connectAdmin(criSocket: string): AdminClient {
  const { Admin } = loadAdmin();
  const client = new Admin(`unix:${adminSocket(criSocket)}`, credentials.createInsecure(), {
    'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  });
  return {
    loadImage: async (source, names, limits) => {
      const request = { source: absolute(source), names: [...names] };
      const response = await callUnary(client, Admin.service.LoadImage, request, limits);
      return response.images;
    },
    list: async (limits) => {
      const { json } = await callUnary(client, Admin.service.List, {}, limits);
      return parse(z.array(description), json);
    },
    pools: async (limits) => {
      const { json } = await callUnary(client, Admin.service.ListPools, {}, limits);
      return parse(z.array(description), json);
    },
    describe: async (sandboxId, limits) => {
      const { json } = await callUnary(client, Admin.service.Describe, { sandboxId }, limits);
      return parse(description, json);
    },
    why: async (pod, limits) => {
      const { json } = await callUnary(client, Admin.service.Why, { pod }, limits);
      return parse(description, json);
    },
    doctor: async (limits) => {
      const { json } = await callUnary(client, Admin.service.Doctor, {}, limits);
      return parse(z.array(check), json).map(({ fix, ...rest }) => ({
        ...rest,
        ...(fix === undefined ? {} : { fix }),
      }));
    },
    templates: async (limits) => (await callUnary(client, Admin.service.ListTemplates, {}, limits)).templates,
    buildTemplate: async (limits) => {
      const { template } = await callUnary(client, Admin.service.BuildTemplate, {}, limits);
      if (!template) throw new InfraletError('INTERNAL', 'the daemon did not say what it has built');
      return template;
    },
    removeTemplate: async (id, limits) => {
      await callUnary(client, Admin.service.RemoveTemplate, { id }, limits);
    },
    explainSize: async (pod, limits) => {
      const { json } = await callUnary(client, Admin.service.ExplainSize, { podJson: JSON.stringify(pod) }, limits);
      return parse(description, json);
    },
    orphans: async (limits) => {
      const { json } = await callUnary(client, Admin.service.ListOrphans, {}, limits);
      return parse(z.array(orphan), json);
    },
    removeOrphans: async (orphans, limits) => {
      const { json } = await callUnary(client, Admin.service.RemoveOrphans, { orphans: [...orphans] }, limits);
      return parse(z.array(removal), json);
    },
    attachVolume: async (pod, volume, limits) =>
      (await callUnary(client, Admin.service.AttachVolume, { pod, volume }, limits)).serial,
    detachVolume: async (pod, volume, limits) => {
      await callUnary(client, Admin.service.DetachVolume, { pod, volume }, limits);
    },
    [Symbol.dispose]: () => client.close(),
  };
}

function parse<Schema extends z.ZodType>(schema: Schema, json: string): z.output<Schema> {
  const parsed = schema.safeParse(JSON.parse(json));
  if (parsed.success) return parsed.data;
  throw new InfraletError('INTERNAL', 'the daemon described sandboxes in a form I do not know', {
    cause: parsed.error,
  });
}

/** The daemon has another working directory than the command. */
function absolute(source: string): string {
  const scheme = /^(oci|oci-archive|docker-archive):/.exec(source)?.[0] ?? '';
  return `${scheme}${resolve(source.slice(scheme.length))}`;
}
