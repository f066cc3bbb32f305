/** The command line's side of the admin service. */
import { resolve } from 'node:path';
import { credentials } from '@grpc/grpc-js';
import { z } from 'zod';
import { InfraletError } from '../base/errors.ts';
import type { LoadedImage__Output } from '../gen/infralet/admin/v1/LoadedImage.ts';
import { adminSocket, loadAdmin } from './protocol.ts';
import { type CallLimits, callUnary } from './unary.ts';

export interface AdminClient extends Disposable {
  /** `source`: oci:DIR[:TAG] or an archive file; relative paths are those of this process. */
  loadImage(source: string, names: readonly string[], limits: CallLimits): Promise<readonly LoadedImage__Output[]>;
  describe(sandboxId: string, limits: CallLimits): Promise<Readonly<Record<string, unknown>>>;
}

/** Connects with the first call. */
export function connectAdmin(criSocket: string): AdminClient {
  const { Admin } = loadAdmin();
  const client = new Admin(`unix:${adminSocket(criSocket)}`, credentials.createInsecure());
  return {
    loadImage: async (source, names, limits) => {
      const request = { source: absolute(source), names: [...names] };
      const response = await callUnary(client, Admin.service.LoadImage, request, limits);
      return response.images;
    },
    describe: async (sandboxId, limits) => {
      const { json } = await callUnary(client, Admin.service.Describe, { sandboxId }, limits);
      const parsed = z.record(z.string(), z.unknown()).safeParse(JSON.parse(json));
      if (!parsed.success)
        throw new InfraletError('INTERNAL', 'the daemon described the sandbox in a form I do not know');
      return parsed.data;
    },
    [Symbol.dispose]: () => client.close(),
  };
}

/** The daemon has another working directory than the command. */
function absolute(source: string): string {
  const scheme = /^(oci|oci-archive|docker-archive):/.exec(source)?.[0] ?? '';
  return `${scheme}${resolve(source.slice(scheme.length))}`;
}
