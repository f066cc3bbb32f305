/** ListImages and StreamImages, from memory. */
import type { Image } from '../../gen/runtime/v1/Image.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import { criImage } from '../convert/image.ts';
import type { CriDeps } from '../deps.ts';
import { pieces, weight } from '../pieces.ts';
import { checkImageSpec } from '../validate/image.ts';

export function listImages(deps: CriDeps, { filter }: CriRequestFull<'ListImages'>): CriResponse<'ListImages'> {
  if (!filter?.image?.image) return { images: deps.images.list().map(criImage) };
  const found = deps.images.find(checkImageSpec('filter.image', filter.image));
  return { images: found ? [criImage(found)] : [] };
}

export async function* streamImages(
  deps: CriDeps,
  request: CriRequestFull<'StreamImages'>,
): AsyncGenerator<CriResponse<'StreamImages'>> {
  const { images = [] } = listImages(deps, request);
  for (const piece of pieces(images, imageWeight)) yield { images: piece };
}

function imageWeight({ repoTags = [], repoDigests = [], spec }: Image): number {
  return weight([...repoTags, ...repoDigests]) + weight(Object.entries(spec?.annotations ?? {}).flat());
}
