/** PullImage, with the credentials of the request, which appear in no log line. Answers with the image's id. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { registryAuth } from '../convert/image.ts';
import type { CriDeps } from '../deps.ts';
import { checkImageSpec } from '../validate/image.ts';

export async function pullImage(
  deps: CriDeps,
  request: CriRequestFull<'PullImage'>,
  context: CallContext,
): Promise<CriResponse<'PullImage'>> {
  const reference = checkImageSpec('image', request.image);
  const record = await deps.images.pull(reference, registryAuth(request.auth), context.signal);
  // Not the digest of the manifest: kubelets compare it with the id that ImageStatus gives.
  return { imageRef: record.id };
}
