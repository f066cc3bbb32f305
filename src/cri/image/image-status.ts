/** ImageStatus. An image that is not there is no error: the answer has no image, and the kubelet pulls. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { criImage } from '../convert/image.ts';
import { verboseInfo } from '../convert/info.ts';
import type { CriDeps } from '../deps.ts';
import { checkImageSpec } from '../validate/image.ts';

export function imageStatus(deps: CriDeps, request: CriRequestFull<'ImageStatus'>): CriResponse<'ImageStatus'> {
  const found = deps.images.find(checkImageSpec('image', request.image));
  if (!found) return { image: null };
  return { image: criImage(found), info: verboseInfo(request.verbose, () => ({ ...found })) };
}
