/** What a machine of a test cloud really is: nothing, an agent's process (agent-cloud.ts), or a virtual machine (qemu-cloud.ts). */

/** A machine as its hardware sees it; the same for both clouds. */
export interface Hardware {
  /** As the metadata service tells it: EC2's instance id; for Compute Engine zone and name. */
  readonly id: string;
  readonly address: string;
  /** What the disk is a copy of. */
  readonly image: string;
  readonly diskGib: number;
  readonly userData: string | undefined;
  readonly spot: boolean;
}

export interface LaunchBackend {
  /** Switches the machine on, the first time or again. `onOff`: it went off by itself. */
  start(machine: Hardware, onOff: () => void): Promise<void>;
  /** Switches it off; its disk stays. */
  halt(id: string): Promise<void>;
  /** Ends it for good. */
  remove(id: string): Promise<void>;
  console(id: string): Promise<string>;
}

/** Another address of the machine that has this one, out of a network of such: 10.20.0.1 → 10.21.0.1 */
export function furtherAddress(address: string, step = 1): string {
  const [first, second, ...rest] = address.split('.');
  return [first, Number(second) + step, ...rest].join('.');
}
