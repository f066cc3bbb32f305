/** Containers as the CRI lists them. */
import { nanos } from '../../base/time.ts';
import type { ContainerView } from '../../container/service.ts';
import type { Container } from '../../gen/runtime/v1/Container.ts';
import { memo } from './memo.ts';

/** The same object as long as nothing changes; see itemwise. */
export const listedContainer = memo(convert);

function convert(view: ContainerView): Container {
  const { config } = view;
  return {
    id: view.id,
    podSandboxId: view.sandboxId,
    metadata: config.metadata,
    image: config.image,
    imageRef: view.imageRef,
    state: view.state,
    createdAt: nanos(view.createdAt),
    labels: config.labels,
    annotations: config.annotations,
    imageId: view.imageId,
  };
}
