/** Calls of containerd's container store as bytes: reading and replacing a container's specification. */
import { errorMessage, InfraletError } from '../base/errors.ts';
import { loadContainerd } from '../rpc/load.ts';

/** How containerd marks the JSON of a runtime specification. */
const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';

export interface SpecCodec {
  readonly getPath: string;
  readonly updatePath: string;
  request(guestId: string): Buffer;
  /** The specification as JSON text. Throws DATA_LOSS on bytes that hold none: they come from the guest. */
  answer(payload: Buffer): string;
  update(guestId: string, spec: string): Buffer;
}

export function createSpecCodec(): SpecCodec {
  const { Get, Update } = loadContainerd().Containers.service;
  return {
    getPath: Get.path,
    updatePath: Update.path,
    request: (id) => Get.requestSerialize({ id }),
    answer: (payload) => {
      const spec = parse(() => Get.responseDeserialize(payload).container?.spec);
      if (!spec || spec.typeUrl !== SPEC_TYPE) {
        throw new InfraletError('DATA_LOSS', 'the guest gave no runtime specification of its container');
      }
      return spec.value.toString();
    },
    update: (id, spec) =>
      Update.requestSerialize({
        container: { id, spec: { typeUrl: SPEC_TYPE, value: Buffer.from(spec) } },
        updateMask: { paths: ['spec'] },
      }),
  };
}

function parse<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw new InfraletError('DATA_LOSS', `the guest's container cannot be read: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
