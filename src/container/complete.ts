/** Between create and start: the guest's specification of a container is read, and completed where containerd's is short. */
import { InfraletError } from '../base/errors.ts';
import type { ContainerConfig__Output } from '../gen/runtime/v1/ContainerConfig.ts';
import type { AgentChannel, CallOptions } from '../guest/channel.ts';
import type { ContainerUserRecord } from './record.ts';
import { completeSpec, needsCompletion, parseSpec, specUser } from './spec.ts';

/** What containerd has made of the configuration, completed; resolves with the user that it found, null where it cannot be asked. */
export async function completeInGuest(
  guestId: string,
  config: ContainerConfig__Output,
  channel: AgentChannel,
  options: CallOptions,
): Promise<ContainerUserRecord | null> {
  let text: string;
  try {
    text = await channel.containerSpec(guestId, options);
  } catch (error) {
    // A machine that was there before the daemon was renewed has an agent that does not relay this.
    if (InfraletError.from(error).code !== 'PERMISSION_DENIED') throw error;
    if (!needsCompletion(config)) return null;
    throw new InfraletError('FAILED_PRECONDITION', "the agent in the pod's machine is too old for this container", {
      hint: 'delete the pod: a new one gets a new machine',
      cause: error,
    });
  }
  const spec = parseSpec(text);
  const complete = completeSpec(spec, config);
  if (complete !== spec) await channel.setContainerSpec(guestId, JSON.stringify(complete), options);
  return specUser(complete);
}
