/**
 * What a cloud's own code has to offer: the narrow slice of its API that `CloudProvider` (provider.ts) builds the provider
 * contract on. Batching, rate limits, choice of an instance type, retries and idempotency after a crash are the same for
 * every cloud and live in this folder; a driver makes single calls and says what their errors mean.
 */
import type { Check, Fault, FaultKind, InstanceState, Leftover, PodLink } from './contract.ts';
import type { Offer } from './offers.ts';

/** Calls that a cloud counts together. Each class has its own limiter, so that deletes never wait for creates. */
export const API_CLASSES = ['launch', 'describe', 'terminate', 'other'] as const;
export type ApiClass = (typeof API_CLASSES)[number];

/** One call that makes machines of one kind. Journalled before it is made, and repeated letter by letter after a crash. */
export interface LaunchCall {
  /** Idempotency token of the call, 32 hex digits: the same token makes the same machines. */
  readonly token: string;
  readonly offer: Offer;
  /** Machines wanted; a cloud may make fewer, but not none without an error. */
  readonly count: number;
  /** Put on every machine (and on its disks and interfaces) in the call itself. */
  readonly tags: Readonly<Record<string, string>>;
  readonly userData: string;
  /** Scratch disk, bytes. */
  readonly diskBytes: number;
}

/** A machine as the cloud's API shows it. */
export interface CloudMachine {
  readonly id: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly state: InstanceState;
  /** Why it is stopping, stopped or terminated, in the cloud's words. */
  readonly reason: string;
  /** What its end says of the offer, where it was ended without having been asked to: capacity that was not there. */
  readonly endedBy?: FaultKind;
  /** Milliseconds since the epoch. */
  readonly launchedAt: number;
  /** Where the node reaches it, once the cloud has given it an address. */
  readonly address: string | undefined;
  /** A second address of its own, for its pod, where it was launched with one. */
  readonly podAddress?: string | undefined;
  readonly type: string;
  readonly zone: string;
  readonly market: Offer['market'];
}

export interface CloudVolume {
  /** That have it, are getting it or are giving it up. */
  readonly machines: readonly string[];
  readonly state: 'free' | 'attached' | 'changing';
  /** As the kernel of a machine that has it shows it. */
  readonly serial: string;
}

/** A fault with what it says about more than this one call. */
export interface CloudFault extends Fault {
  /** For `no-capacity`: what is not to be had. @default offer */
  readonly scope?: 'offer' | 'zone' | 'market';
}

export interface CloudDriver extends AsyncDisposable {
  readonly name: string;
  /** Most machines that one launch call can make; 1 where a call makes one. */
  readonly maxPerCall: number;
  /** What can be had where, at which price; asked for seldom and cached by the caller. */
  catalogue(signal: AbortSignal): Promise<readonly Offer[]>;
  /** Offers made to measure for this shape, where the cloud has them. Pure. */
  readonly custom?: (need: { readonly cpuMillis: number; readonly memoryBytes: number }) => readonly Offer[];
  /** Makes between one and `count` machines, or fails. No retries of its own. */
  launch(call: LaunchCall, signal: AbortSignal): Promise<readonly CloudMachine[]>;
  /** All machines that carry these tags, those terminated lately included. `pages` counts the calls that it took. */
  list(
    tags: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<{ readonly machines: readonly CloudMachine[]; readonly pages: number }>;
  /** Ends machines. May fail as a whole when one is unknown; the caller then ends them one by one. */
  terminate(ids: readonly string[], signal: AbortSignal): Promise<void>;
  classify(error: unknown): CloudFault;
  console(id: string, maxBytes: number, signal: AbortSignal): Promise<string>;
  /** Machines are launched with an address for their pod. @default false */
  readonly directPods?: boolean;
  /** How the pod's network reaches the machine. */
  podLink(machine: CloudMachine): PodLink | undefined;
  /** Stop and start (hibernated where the cloud can), for pools of machines that are paid for when they are used. */
  readonly power?: {
    suspend(ids: readonly string[], signal: AbortSignal): Promise<void>;
    resume(ids: readonly string[], signal: AbortSignal): Promise<void>;
  };
  /** Block volumes that exist already. */
  readonly volumes?: {
    /** Undefined: there is no such volume. */
    find(volume: string, signal: AbortSignal): Promise<CloudVolume | undefined>;
    /** May return before it is attached. */
    attach(id: string, volume: string, signal: AbortSignal): Promise<void>;
    detach(id: string, volume: string, signal: AbortSignal): Promise<void>;
  };
  /** Disks, interfaces and addresses that carry these tags and belong to no machine. */
  readonly leftovers?: {
    list(tags: Readonly<Record<string, string>>, signal: AbortSignal): Promise<readonly Leftover[]>;
    remove(leftover: Leftover, signal: AbortSignal): Promise<void>;
  };
  doctor(signal: AbortSignal): Promise<readonly Check[]>;
}
