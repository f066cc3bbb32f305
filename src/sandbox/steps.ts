/** The executors: one per step kind, each safe to repeat. They read and write the store; the planner decides. */
import { randomBytes } from 'node:crypto';
import { errorMessage, InfraletError } from '../base/errors.ts';
import type { InstanceId, SandboxId } from '../base/ids.ts';
import { type Clock, until, withTimeout } from '../base/time.ts';
import { type Instance, ownerTags, type Power, type Provider, TAGS } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import type { AgentChannel, CallOptions, ChannelDialer, GuestPod, MachineIdentity } from '../guest/channel.ts';
import { directNetwork } from '../network/direct.ts';
import type { DirectLink, PodNetwork, PodNetworkSpec } from '../network/pod-network.ts';
import type { Logger } from '../telemetry/log.ts';
import { consoleTail } from './console.ts';
import { GuestClock } from './guest-clock.ts';
import { NOBODYS_POD, type NodeFacts } from './guest-config.ts';
import { GUEST_CALL_MS, type GuestRun, podOfTemplate, runInGuest } from './guest-run.ts';
import { hostPorts } from './host-ports.ts';
import type { Launcher } from './launcher.ts';
import type { StepKind } from './plan.ts';
import type { SandboxRecord } from './record.ts';
import type { Sessions } from './session.ts';
import { podLimits } from './sizing.ts';
import type { StartKind, StartupGate } from './startup-gate.ts';
import type { SandboxEntry, SandboxStore } from './store.ts';

/** What containers have to do when their sandbox ends. */
export interface ContainerHooks {
  /** Whether a container may still run in the machine, or has words left that are not on the node. */
  busy(id: SandboxId): boolean;
  /** Before the pod's processes are killed: nothing may keep them. */
  ending(id: SandboxId, signal: AbortSignal): Promise<void>;
  /** Before the machine goes: last statuses and logs are fetched. */
  drain(id: SandboxId, signal: AbortSignal): Promise<void>;
  /** The machine is gone: whatever still seemed to run has ended. */
  lost(id: SandboxId, reason: string): void;
  /** The sandbox's record goes: so do those of its containers. */
  forget(id: SandboxId): Promise<void>;
}

export interface StepDeps {
  readonly config: Config;
  readonly node: NodeFacts;
  readonly provider: Provider;
  readonly launcher: Launcher;
  readonly gate: StartupGate;
  readonly network: PodNetwork;
  readonly dialer: ChannelDialer;
  readonly sessions: Sessions;
  readonly store: SandboxStore;
  readonly containers: ContainerHooks;
  /** Keeps what happened on the way through a step, for `infralet why`. */
  readonly note: (id: SandboxId, step: StepKind, text: string) => void;
  readonly clock: Clock;
  readonly log: Logger;
}

type Entry = Pick<SandboxEntry, 'record' | 'config'>;

type Executor = (entry: SandboxEntry, signal: AbortSignal) => Promise<void>;

/** Of a call that may still be under way. */
const NO_ANSWER: ReadonlySet<string> = new Set(['UNAVAILABLE', 'DEADLINE_EXCEEDED', 'CANCELLED']);
/** Phases of a start that the node sees for itself; figures are made of them. */
const NODE_PHASES: ReadonlySet<string> = new Set(
  'asked turn network launch enrolled connected joined guest ready claimed suspended resumed failed terminated image'.split(
    ' ',
  ),
);
/** More than an agent tells of its boot. */
const MAX_PHASES = 32;
/** Of the console, in an error message. */
const TAIL_BYTES = 1024;
/** Of the console of a machine that has failed, kept for `infralet why`. */
const KEPT_CONSOLE_BYTES = 4096;
/** A machine that has failed is paid for until it is gone. */
const CONSOLE_MS = 3000;

export function stepExecutors(deps: StepDeps): Readonly<Record<StepKind, Executor>> {
  const { store, provider, network, clock, sessions } = deps;
  const guestClock = new GuestClock(clock);

  return {
    'network.add': async (entry, signal) => {
      const { record } = entry;
      await deps.gate.enter(record.id, startKind(record), signal);
      store.update(record.id, { network: 'adding' });
      const link = await directLink(deps, record, signal);
      const now = link ? directNetwork(link) : await network.add(networkSpec(entry), signal);
      const made = { network: 'added', networkResult: now } as const;
      if (!link) store.update(record.id, made, { network: clock.now() });
      else store.update(record.id, { ...made, joined: true, link }, { network: clock.now(), joined: clock.now() });
    },

    'machine.launch': async ({ record }, signal) => {
      await deps.gate.enter(record.id, startKind(record), signal);
      const turn = { turn: clock.now() };
      const launching = { machine: 'launching' } as const;
      if (!store.transition(record.id, ['planned'], 'requested', launching, turn)) store.update(record.id, launching);
      const instance = await deps.launcher.launch(
        {
          token: record.launchToken,
          tags: machineTags(deps.config, deps.node.hostname, record),
          shape: record.shape,
          placement: record.placement,
          userData: deps.dialer.userData(record.enrolToken, { sandboxId: record.id }),
          note: (text) => deps.note(record.id, 'machine.launch', text),
        },
        record.pool !== '',
        signal,
      );
      // Machines of one shared launch call have tokens that were not known before it.
      const { enrolToken = record.enrolToken } = instance;
      const { start, purchase } = instance;
      const launched = { machine: 'launched', instanceId: instance.id, enrolToken, start, purchase } as const;
      const launch = { launch: clock.now() };
      if (!store.transition(record.id, ['requested'], 'running', launched, launch)) {
        store.update(record.id, launched, launch);
      }
    },

    'machine.resize': async ({ record }, signal) => {
      for (const id of machineOf(record)) await provider.resize?.(id, record.shape, signal);
      store.update(record.id, { resize: false });
    },

    'machine.suspend': async ({ record }, signal) => {
      store.update(record.id, { power: 'suspending' });
      await sessions.end(record.id, 'the machine is suspended');
      await powerOf(provider).suspend(machineOf(record), signal);
      store.update(record.id, { power: 'suspended' }, { suspended: clock.now() });
    },

    'machine.resume': async ({ record }, signal) => {
      await powerOf(provider).resume(machineOf(record), signal);
      store.update(record.id, { power: 'on' }, { resumed: clock.now() });
    },

    'network.join': async (entry, signal) => {
      const { record } = entry;
      const instance = await running(deps, record, signal);
      if (!instance.podLink || !record.networkResult) {
        throw new InfraletError('INTERNAL', `machine ${instance.id} offers no link for its pod network`, {
          context: { sandboxId: record.id },
        });
      }
      const link = await network.join(networkSpec(entry), record.networkResult, instance.podLink, signal);
      store.update(record.id, { joined: true, link }, { joined: clock.now() });
    },

    'agent.connect': async ({ record }, signal) => {
      // A channel that no session takes over is closed: it renews certificates and keeps its connection by itself.
      await using untilStarted = new AsyncDisposableStack();
      const met = await connect(deps, record, signal);
      const channel = untilStarted.use(met.channel);
      await adopt({ ...deps, guestClock }, record.id, met, signal);
      await sessions.start(record.id, channel);
      untilStarted.move();
      if (record.pool !== '' && record.rehearsed) deps.gate.leave(record.id);
    },

    'guest.rehearse': async ({ record }, signal) => {
      const options = { signal, timeoutMs: GUEST_CALL_MS };
      const channel = channelOf(deps, record.id);
      try {
        await channel.configurePod(NOBODYS_POD, options);
        await channel.rehearse(deps.config.pools[record.pool]?.rehearse === true, options);
      } catch (error) {
        signal.throwIfAborted();
        // Without an answer nobody knows whether it is still at it: no pod may get such a machine.
        if (NO_ANSWER.has(InfraletError.from(error).code)) throw error;
        // Without it the pod and its container only start more slowly.
        deps.log.warn('the rehearsal of a container in a machine of a pool failed', {
          ...{ sandboxId: record.id, pool: record.pool, reason: errorMessage(error) },
        });
      }
      store.update(record.id, { rehearsed: true }, { rehearsed: clock.now() });
      deps.gate.leave(record.id);
    },

    'guest.run': async ({ record, config }, signal) => {
      const channel = channelOf(deps, record.id);
      // What is asked of a machine that is lost has no answer to wait for.
      const ended = sessions.ended(record.id);
      const limit = ended ? AbortSignal.any([signal, ended]) : signal;
      const run = guestRun(deps, { record, config });
      if (!run) throw new InfraletError('INTERNAL', `${nameOf(record)} has no network yet`);
      const id = await runInGuest({ ...run, channel }, limit);
      store.update(record.id, { guestSandboxId: id }, { guest: clock.now() });
    },

    ready: async ({ record }) => {
      deps.gate.leave(record.id);
      store.transition(
        record.id,
        ['planned', 'requested', 'running', 'connected'],
        'ready',
        { listed: true, lastError: '' },
        { ready: clock.now() },
      );
    },

    'guest.stop': async ({ record }, signal) => {
      store.transition(record.id, ['planned', 'requested', 'running', 'connected', 'ready'], 'stopping');
      const channel = sessions.get(record.id);
      // With nothing left to stop or to fetch the machine simply goes: an orderly end would be for nobody.
      if (channel && deps.containers.busy(record.id)) {
        using limit = withTimeout(signal, GUEST_CALL_MS, 'stopping the pod in its machine');
        const options = { signal: limit, timeoutMs: GUEST_CALL_MS };
        // The kubelet has stopped the containers with their grace already; what still runs here is killed at once.
        try {
          await deps.containers.ending(record.id, limit);
          await channel.cri('StopPodSandbox', { podSandboxId: record.guestSandboxId }, options);
          await deps.containers.drain(record.id, limit);
        } catch (error) {
          signal.throwIfAborted();
          // The machine goes whatever happens; a guest that does not answer must not keep it.
          deps.log.warn('the pod did not stop in good order', { sandboxId: record.id, error });
        }
      }
      store.update(record.id, { guestStopped: true });
    },

    'machine.terminate': async ({ record }, signal) => {
      await keepConsole(deps, record, signal);
      const ids = await instanceIds(provider, deps.config, record, signal);
      await sessions.end(record.id, 'the machine is terminated');
      await provider.terminate(ids, signal);
      deps.containers.lost(record.id, record.reason);
      store.update(record.id, { machine: 'gone', enrolToken: '' }, { terminated: clock.now() });
    },

    'network.remove': async (entry, signal) => {
      await network.remove(networkSpec(entry), signal);
      store.update(entry.record.id, { network: 'gone', joined: false });
    },

    settle: async ({ record }) => {
      deps.containers.lost(record.id, record.reason);
      store.transition(record.id, ['planned', 'requested', 'running', 'connected', 'ready', 'stopping'], 'stopped');
    },

    forget: async ({ record }) => {
      await deps.containers.forget(record.id);
      store.remove(record.id, { at: clock.now(), keep: deps.config.reconciler.keepEnded });
    },
  };
}

/** Before the machine goes with it: the console is what tells why a machine has failed its pod. */
async function keepConsole(deps: StepDeps, record: SandboxRecord, signal: AbortSignal): Promise<void> {
  if (record.state !== 'failed' || record.console !== undefined || record.instanceId === undefined) return;
  using limit = withTimeout(signal, CONSOLE_MS, 'reading the console');
  const console = await consoleTail(deps.provider, record.instanceId, KEPT_CONSOLE_BYTES, limit);
  signal.throwIfAborted();
  deps.store.update(record.id, { console });
}

function startKind({ pool, machine }: SandboxRecord): StartKind {
  if (pool !== '') return 'refill';
  return machine === 'launched' ? 'claimed' : 'pod';
}

function machineTags(config: Config, node: string, record: SandboxRecord): Readonly<Record<string, string>> {
  return {
    ...ownerTags(config.cluster, node),
    [TAGS.sandbox]: record.id,
    [TAGS.podUid]: record.podUid,
    [TAGS.attempt]: String(record.attempt),
    [TAGS.token]: record.launchToken,
    ...(record.pool === '' ? {} : { [TAGS.pool]: record.pool }),
  };
}

function networkSpec({ record, config }: SandboxEntry): PodNetworkSpec {
  return {
    sandboxId: record.id,
    podName: record.podName,
    podNamespace: record.podNamespace,
    podUid: record.podUid,
    portMappings: hostPorts(config),
  };
}

/** The machine, once the provider says that it runs or where its agent will be. */
async function running(deps: StepDeps, record: SandboxRecord, signal: AbortSignal): Promise<Instance> {
  const [instanceId] = machineOf(record);
  return await until(
    async () => {
      const [instance] = await deps.provider.describe({ by: 'ids', ids: [instanceId] }, signal);
      if (!instance || instance.state === 'terminated' || instance.state === 'stopped') {
        throw new InfraletError(
          'ABORTED',
          `the machine of ${nameOf(record)} has ended: ${instance?.reason || 'it is gone'}`,
          {
            context: {
              sandboxId: record.id,
              console: await consoleTail(deps.provider, instanceId, TAIL_BYTES, signal),
            },
          },
        );
      }
      // Clouds say "running" seconds after the agent could answer: its address is enough to try.
      return instance.state === 'running' || instance.agent ? instance : undefined;
    },
    { everyMs: deps.config.machine.connectInterval, clock: deps.clock, signal },
  );
}

/** The pod's address that its machine has brought; one that was launched otherwise (it waited in a pool) has none. */
async function directLink(deps: StepDeps, record: SandboxRecord, signal: AbortSignal): Promise<DirectLink | undefined> {
  if (deps.provider.directPods !== true) return undefined;
  const { podLink } = await running(deps, record, signal);
  return podLink?.kind === 'direct' ? { machine: podLink.address, pod: podLink.podAddress } : undefined;
}

interface Met {
  readonly channel: AgentChannel;
  /** When it enrolled; undefined: it did so before. */
  readonly enrolled?: number;
}

/** Connects to the agent, trying while the machine boots. */
async function connect(deps: StepDeps, record: SandboxRecord, signal: AbortSignal): Promise<Met> {
  const { config, dialer, clock } = deps;
  const timeoutMs = record.state === 'ready' ? config.machine.goneAfter : config.machine.bootTimeout;
  using limit = withTimeout(signal, timeoutMs, `waiting for the agent of ${nameOf(record)}`, clock);
  let last: unknown;
  try {
    return await until(
      async (): Promise<Met | undefined> => {
        const { agent, id } = await running(deps, record, limit);
        if (!agent) return undefined;
        const identity = { sandboxId: record.id, instanceId: id };
        try {
          if (record.enrolled) return { channel: await dialer.connect(agent, identity, { signal: limit, timeoutMs }) };
          const channel = await enrol(deps, record, agent, identity, { signal: limit, timeoutMs });
          return { channel, enrolled: clock.now() };
        } catch (error) {
          if (InfraletError.from(error).code !== 'UNAVAILABLE') throw error;
          last = error;
          return undefined;
        }
      },
      { everyMs: config.machine.connectInterval, clock, signal: limit },
    );
  } catch (error) {
    signal.throwIfAborted();
    const known = InfraletError.from(limit.aborted ? limit.reason : error);
    const tail =
      record.instanceId === undefined ? '' : await consoleTail(deps.provider, record.instanceId, TAIL_BYTES, signal);
    throw new InfraletError(
      known.code,
      `${known.message}${last === undefined ? '' : ` (last try: ${InfraletError.from(last).message})`}${tail === '' ? '' : `; end of its console: ${tail}`}`,
      { cause: error, context: { sandboxId: record.id }, hint: `infralet describe ${record.id}` },
    );
  }
}

/** Enrols the machine; one that did so just before the daemon was killed proves itself by its certificate instead. */
async function enrol(
  { dialer }: StepDeps,
  record: SandboxRecord,
  address: { readonly host: string; readonly port: number },
  identity: MachineIdentity,
  options: CallOptions,
): Promise<AgentChannel> {
  try {
    return await dialer.enrol(address, identity, record.enrolToken, options);
  } catch (error) {
    if (InfraletError.from(error).code !== 'PERMISSION_DENIED') throw error;
    return await dialer.connect(address, identity, options).catch(() => {
      throw error;
    });
  }
}

/** What the pod's sandbox in the machine needs; undefined while the pod has no network. */
function guestRun(deps: StepDeps, { record, config }: Entry): Omit<GuestRun, 'channel'> | undefined {
  const { networkResult: network, link } = record;
  if (!network) return undefined;
  const { resources = null, overhead = null } = config.linux ?? {};
  const limits = podLimits(resources, overhead, record.shape, deps.config.machine);
  return { config, node: deps.node, network, link, limits, clock: deps.clock };
}

/** The pod as the machine can be told of it with its first words, before there is a session: that spares it a call. */
function podAtOnce(deps: StepDeps, entry: Entry): GuestPod | undefined {
  const { record } = entry;
  const early = record.pool === '' && record.guestSandboxId === '' && record.network === 'added';
  if (!early || (deps.provider.linkFirst === true && !record.joined)) return undefined;
  const run = guestRun(deps, entry);
  return run && podOfTemplate(run);
}

/**
 * First words over a new channel: clock, randomness, the pod, and the machine's own account of its boot. One line of the
 * journal holds what came of it, the enrolment included: a machine that is asked to enrol again proves itself by its certificate.
 */
async function adopt(
  deps: StepDeps & { readonly guestClock: GuestClock },
  id: SandboxId,
  { channel, enrolled }: Met,
  signal: AbortSignal,
): Promise<void> {
  const { store, clock, node, guestClock } = deps;
  const entry = store.get(id);
  if (!entry) return;
  const { record } = entry;
  const options = { signal, timeoutMs: GUEST_CALL_MS };
  const settings = { entropy: randomBytes(64), hostname: node.hostname, pod: podAtOnce(deps, entry) };
  const answer = await guestClock.configure(channel, settings, options);
  deps.log.debug('what the machine says of itself', {
    sandboxId: id,
    agent: answer.agentVersion.slice(0, 64),
    kernel: answer.kernel.slice(0, 64),
    bootId: answer.bootId.slice(0, 64),
  });
  const now = clock.now();
  const kernelStart = now - answer.uptimeMs;
  const phases = Object.entries(answer.phases)
    // What is the node's own to tell, a guest does not tell.
    .filter(([phase]) => !NODE_PHASES.has(phase))
    .slice(0, MAX_PHASES)
    .map(([phase, ms]) => [phase.slice(0, 64), kernelStart + ms] as const);
  // The kernel of a clone has been up since before the pod was thought of.
  const since = [['kernel', kernelStart] as const, ...phases].filter(([, at]) => at >= record.createdAt && at <= now);
  const made = answer.sandboxId === '' ? {} : { guestSandboxId: answer.sandboxId };
  const change = { enrolled: true, enrolToken: '', ...made };
  const own = { ...(enrolled === undefined ? {} : { enrolled }), ...(answer.sandboxId === '' ? {} : { guest: now }) };
  const reached = { ...Object.fromEntries(since), ...own, connected: now };
  const image = answer.imageDigest.slice(0, 128);
  if (store.transition(id, ['planned', 'requested', 'running'], 'connected', { ...change, image }, reached)) return;
  if (!record.enrolled || answer.sandboxId !== '') store.update(id, change, own);
}

function nameOf({ pool, podNamespace, podName }: SandboxRecord): string {
  return pool === '' ? `${podNamespace}/${podName}` : `the pool ${pool}`;
}

function machineOf(record: SandboxRecord): readonly [InstanceId] {
  if (record.instanceId === undefined) throw new InfraletError('INTERNAL', `${nameOf(record)} has no machine yet`);
  return [record.instanceId];
}

function powerOf({ name, power }: Provider): Power {
  if (power) return power;
  throw new InfraletError('FAILED_PRECONDITION', `the provider ${name} cannot suspend and resume machines`);
}

/** All machines that may belong to the sandbox: also one whose launch answered nobody. */
async function instanceIds(
  provider: Provider,
  config: Config,
  record: SandboxRecord,
  signal: AbortSignal,
): Promise<readonly InstanceId[]> {
  const tags = { [TAGS.cluster]: config.cluster, [TAGS.sandbox]: record.id };
  const found = await provider.describe({ by: 'tags', tags }, signal);
  const ids = new Set(found.map(({ id }) => id));
  if (record.instanceId !== undefined) ids.add(record.instanceId);
  return [...ids];
}

function channelOf(deps: StepDeps, id: SandboxId): AgentChannel {
  const channel = deps.sessions.get(id);
  if (channel) return channel;
  throw new InfraletError('UNAVAILABLE', `the channel to the machine of sandbox ${id} is lost`, {
    hint: 'it is being made again; the same call later will do',
  });
}
