/** ImageStatus; verbose, it has the image's configuration under the name that crictl's users know from containerd. An image that is not there is no error: the answer has no image, and the kubelet pulls. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { criImage } from '../convert/image.ts';
import { verboseInfo } from '../convert/info.ts';
import type { CriDeps } from '../deps.ts';
import { checkImageSpec } from '../validate/image.ts';

export async function imageStatus(
  deps: CriDeps,
  request: CriRequestFull<'ImageStatus'>,
): Promise<CriResponse<'ImageStatus'>> {
  const found = deps.images.find(checkImageSpec('image', request.image));
  if (!found) return { image: null };
  const image = criImage(found);
  if (!request.verbose) return { image };
  const imageSpec = await deps.images.configuration(found.id);
  return { image, info: verboseInfo(true, () => ({ ...found, imageSpec })) };
}
