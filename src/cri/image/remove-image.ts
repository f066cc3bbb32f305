/** RemoveImage: by any of its names the whole image goes, with all its names. Idempotent; succeeds on the absent. */
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';
import { checkImageSpec } from '../validate/image.ts';

export async function removeImage(
  deps: CriDeps,
  request: CriRequestFull<'RemoveImage'>,
  context: CallContext,
): Promise<CriResponse<'RemoveImage'>> {
  await deps.images.remove(checkImageSpec('image', request.image), context.signal);
  return {};
}
