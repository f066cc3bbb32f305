/** ListImages, from memory. */
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { criImage } from '../convert/image.ts';
import type { CriDeps } from '../deps.ts';
import { checkImageSpec } from '../validate/image.ts';

export function listImages(deps: CriDeps, { filter }: CriRequestFull<'ListImages'>): CriResponse<'ListImages'> {
  if (!filter?.image?.image) return { images: deps.images.list().map(criImage) };
  const found = deps.images.find(checkImageSpec('filter.image', filter.image));
  return { images: found ? [criImage(found)] : [] };
}
