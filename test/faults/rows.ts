/** The journalled steps, by the effect on the outside at which the daemon is killed. */
import type { Call, CloudName } from './clouds.ts';

/** What the kubelet wants when the daemon is killed. */
export type Wish = 'run' | 'end' | 'end abruptly' | 'claim';

export interface Row {
  readonly step: string;
  readonly what: string;
  /** As the kill switch names it. */
  readonly effect: string;
  readonly wish: Wish;
  /** Which cloud call the effect is, where a cloud has it; all else fails on the node. */
  readonly call?: Call;
  /** @default all */
  readonly clouds?: readonly CloudName[];
}

const SHARED: readonly CloudName[] = ['ec2', 'gce'];

export const ROWS: readonly Row[] = [
  { step: 'network.add', what: 'CNI ADD', effect: 'network.add', wish: 'run' },
  { step: 'machine.launch', what: 'the call is noted', effect: 'store.begin', wish: 'run', clouds: SHARED },
  { step: 'machine.launch', what: 'the launch call', effect: 'provider.launch', wish: 'run', call: 'launch' },
  { step: 'machine.launch', what: 'the machine is noted', effect: 'store.assign', wish: 'run', clouds: SHARED },
  { step: 'agent.connect', what: 'enrolment', effect: 'dialer.enrol', wish: 'run' },
  { step: 'network.join', what: 'the pod’s network reaches the machine', effect: 'network.join', wish: 'run' },
  { step: 'guest.run', what: 'RunPodSandbox in the machine', effect: 'guest.RunPodSandbox', wish: 'run' },
  { step: 'ready', what: 'the sandbox is noted as ready', effect: 'journal.ready', wish: 'run' },
  { step: 'container', what: 'PullImage in the machine', effect: 'guest.PullImage', wish: 'run' },
  { step: 'container', what: 'CreateContainer in the machine', effect: 'guest.CreateContainer', wish: 'run' },
  { step: 'container', what: 'StartContainer in the machine', effect: 'guest.StartContainer', wish: 'run' },
  { step: 'container', what: 'StopContainer in the machine', effect: 'guest.StopContainer', wish: 'end' },
  { step: 'container', what: 'RemoveContainer in the machine', effect: 'guest.RemoveContainer', wish: 'end' },
  { step: 'guest.stop', what: 'StopPodSandbox in the machine', effect: 'guest.StopPodSandbox', wish: 'end abruptly' },
  {
    step: 'machine.terminate',
    what: 'the call that ends it',
    effect: 'provider.terminate',
    wish: 'end',
    call: 'terminate',
  },
  { step: 'network.remove', what: 'CNI DEL', effect: 'network.remove', wish: 'end' },
  { step: 'settle', what: 'the sandbox is noted as stopped', effect: 'journal.stopped', wish: 'end' },
  { step: 'forget', what: 'the records are deleted', effect: 'journal.deleteSandbox', wish: 'end' },
  { step: 'claim', what: 'a pod gets the machine of a pool', effect: 'journal.replaceSandbox', wish: 'claim' },
  {
    step: 'machine.suspend',
    what: 'the call that suspends it',
    effect: 'power.suspend',
    wish: 'claim',
    call: 'suspend',
  },
  { step: 'machine.resume', what: 'the call that resumes it', effect: 'power.resume', wish: 'claim', call: 'resume' },
  { step: 'machine.resize', what: 'its share of the CPU', effect: 'provider.resize', wish: 'claim', clouds: ['fake'] },
];
