/** ImageFsInfo: what the image store uses. Containers' own layers lie in their machines and use nothing here. */
import { nanos } from '../../base/time.ts';
import type { CallContext } from '../../rpc/adapter.ts';
import type { CriRequestFull, CriResponse } from '../../rpc/cri.ts';
import type { CriDeps } from '../deps.ts';

export async function imageFsInfo(
  deps: CriDeps,
  _request: CriRequestFull<'ImageFsInfo'>,
  context: CallContext,
): Promise<CriResponse<'ImageFsInfo'>> {
  const usage = await deps.images.usage(context.signal);
  const filesystem = {
    timestamp: nanos(deps.clock.now()),
    fsId: { mountpoint: usage.mountpoint },
    usedBytes: { value: usage.usedBytes },
    inodesUsed: { value: usage.inodesUsed },
  };
  // The same one twice tells the kubelet that images and containers are not split.
  return { imageFilesystems: [filesystem], containerFilesystems: [filesystem] };
}
