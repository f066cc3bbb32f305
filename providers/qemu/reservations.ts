/** Ports and users that machines hold: no two live machines share one. Loaded from the records, kept in memory. */
import { InfraletError } from '../../src/base/errors.ts';
import { freePort } from '../../src/base/free-port.ts';
import type { InstanceId } from '../../src/base/ids.ts';
import type { QemuConfig } from './config.ts';

export interface Reservation {
  readonly port: number;
  readonly uid: number;
}

export class Reservations {
  readonly #held = new Map<InstanceId, Reservation>();
  readonly #config: Pick<QemuConfig, 'uidFirst' | 'uidCount'>;

  constructor(config: Pick<QemuConfig, 'uidFirst' | 'uidCount'>) {
    this.#config = config;
  }

  /** Takes note of what a machine found on disk holds. */
  restore(id: InstanceId, reservation: Reservation): void {
    this.#held.set(id, reservation);
  }

  /** A free port on loopback and a free user. Taking again for one machine gives it another port. */
  async take(id: InstanceId): Promise<Reservation> {
    // QEMU's own bind decides; its refusal is retried with another port. The port is found before the bookkeeping, so that nothing waits between the look and the note.
    let port = await freePort();
    const taken = new Set([...this.#held.values()].map((held) => held.port));
    while (taken.has(port)) port = await freePort();
    const reservation = { port, uid: this.#held.get(id)?.uid ?? this.#freeUid() };
    this.#held.set(id, reservation);
    return reservation;
  }

  release(id: InstanceId): void {
    this.#held.delete(id);
  }

  #freeUid(): number {
    const { uidFirst, uidCount } = this.#config;
    const taken = new Set([...this.#held.values()].map((held) => held.uid));
    for (let uid = uidFirst; uid < uidFirst + uidCount; uid += 1) if (!taken.has(uid)) return uid;
    throw new InfraletError('RESOURCE_EXHAUSTED', `all ${uidCount} users for machines are in use`, {
      hint: 'raise providers.qemu.uidCount, or run fewer pods on this node',
    });
  }
}
