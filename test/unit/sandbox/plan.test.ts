import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseInstanceId } from '../../../src/base/ids.ts';
import { type Observed, plan, type StepKind } from '../../../src/sandbox/plan.ts';
import { SANDBOX_STATES, type SandboxRecord } from '../../../src/sandbox/record.ts';
import { sandboxRecord } from '../../support/sandbox-records.ts';

interface World {
  record: SandboxRecord;
  observed: Observed;
  forgotten: boolean;
}

/** What each step makes true when it succeeds. */
const EFFECTS: Readonly<Record<StepKind, (world: World) => void>> = {
  'network.add': (world) => set(world, { network: 'added' }),
  'network.join': (world) => set(world, { joined: true }),
  'network.remove': (world) => set(world, { network: 'gone', joined: false }),
  'machine.launch': (world) => set(world, { machine: 'launched', instanceId: parseInstanceId('i-1') }),
  'machine.resize': (world) => set(world, { resize: false }),
  'machine.suspend': (world) => {
    set(world, { power: 'suspended' });
    world.observed = { ...world.observed, connected: false };
  },
  'machine.resume': (world) => set(world, { power: 'on' }),
  'machine.terminate': (world) => {
    set(world, { machine: 'gone' });
    world.observed = { connected: false };
  },
  'agent.connect': (world) => {
    world.observed = { ...world.observed, connected: true };
  },
  'guest.rehearse': (world) => set(world, { rehearsed: true }),
  'guest.run': (world) => set(world, { guestSandboxId: 'guest-1' }),
  'guest.stop': (world) => set(world, { guestStopped: true }),
  ready: (world) => set(world, { state: 'ready' }),
  settle: (world) => set(world, { state: 'stopped' }),
  forget: (world) => {
    world.forgotten = true;
  },
};

function set(world: World, change: Partial<SandboxRecord>): void {
  world.record = { ...world.record, ...change };
}

/** Plans and carries out until nothing is left; returns the steps taken, in order. */
function settle(world: World): StepKind[] {
  const taken: StepKind[] = [];
  for (let round = 0; round < 30; round += 1) {
    const steps = plan(world.record, world.observed);
    if (steps.length === 0 || world.forgotten) return taken;
    for (const step of steps) EFFECTS[step](world);
    taken.push(...steps);
  }
  throw new Error(`the plan never ends: ${taken.join(', ')}`);
}

const anyRecord = fc
  .record({
    state: fc.constantFrom(...SANDBOX_STATES),
    wanted: fc.constantFrom('ready', 'stopped', 'removed'),
    machine: fc.constantFrom('none', 'launching', 'launched', 'gone'),
    network: fc.constantFrom('none', 'adding', 'added', 'gone'),
    joined: fc.boolean(),
    resize: fc.boolean(),
    rehearsed: fc.boolean(),
    power: fc.constantFrom('on', 'suspending', 'suspended'),
    guestSandboxId: fc.constantFrom('', 'guest-1'),
    guestStopped: fc.boolean(),
  } as const)
  .map((change) => sandboxRecord(change));

describe('plan', () => {
  test('a machine that brings its pod an address comes before the network', () => {
    const direct = { connected: false, linkFirst: true, directPods: true };
    const record = sandboxRecord();
    expect(plan(record, direct)).toEqual(['machine.launch']);
    const launched = sandboxRecord({ machine: 'launched', instanceId: parseInstanceId('i-1') });
    expect(plan(launched, direct)).toEqual(['network.add', 'agent.connect']);
    const linked = sandboxRecord({ ...launched, network: 'added', joined: true });
    expect(plan(linked, { ...direct, connected: true })).toEqual(['guest.run']);
  });

  test('builds a sandbox from nothing, machine and network side by side', () => {
    const world: World = { record: sandboxRecord(), observed: { connected: false }, forgotten: false };
    expect(plan(world.record, world.observed)).toEqual(['network.add', 'machine.launch']);
    expect(settle(world)).toEqual([
      'network.add',
      'machine.launch',
      'network.join',
      'agent.connect',
      'guest.run',
      'ready',
    ]);
  });

  test('a machine for a pool is made and connected, and waits without a network', () => {
    const record = sandboxRecord({ pool: 'small' });
    const world: World = { record, observed: { connected: false }, forgotten: false };
    expect(settle(world)).toEqual(['machine.launch', 'agent.connect']);
    expect(world.record.network).toBe('none');
    set(world, { pool: '', resize: true });
    expect(plan(world.record, world.observed)).toEqual(['network.add', 'machine.resize']);
    expect(settle(world)).toEqual(['network.add', 'machine.resize', 'network.join', 'guest.run', 'ready']);
  });

  test('a machine that has to rehearse does so once, connected, before it may be suspended', () => {
    const record = sandboxRecord({ pool: 'small', rehearsed: false });
    const world: World = { record, observed: { connected: false, suspends: true }, forgotten: false };
    expect(settle(world)).toEqual(['machine.launch', 'agent.connect', 'guest.rehearse', 'machine.suspend']);
  });

  test('a machine that waits suspended connects first, is left alone then, and is resumed for its pod', () => {
    const observed = { connected: false, suspends: true };
    const world: World = { record: sandboxRecord({ pool: 'cheap' }), observed, forgotten: false };
    expect(settle(world)).toEqual(['machine.launch', 'agent.connect', 'machine.suspend']);
    // Cut short, it is done again whatever the channel says.
    expect(plan({ ...world.record, power: 'suspending' }, observed)).toEqual(['machine.suspend']);
    set(world, { pool: '' });
    expect(plan(world.record, world.observed)).toEqual(['network.add', 'machine.resume']);
    const rest = ['network.add', 'machine.resume', 'network.join', 'agent.connect', 'guest.run', 'ready'];
    expect(settle(world)).toEqual(rest);
  });

  test('neither the network nor the agent waits for the other', () => {
    const launched = sandboxRecord({ machine: 'launched', network: 'adding' });
    expect(plan(launched, { connected: false })).toContain('agent.connect');
    const added = sandboxRecord({ machine: 'launched', network: 'added' });
    expect(plan(added, { connected: true })).toEqual(['network.join', 'guest.run']);
  });

  test('a ready sandbox that lost its channel connects again and does nothing else', () => {
    const record = sandboxRecord({
      state: 'ready',
      machine: 'launched',
      network: 'added',
      joined: true,
      guestSandboxId: 'guest-1',
    });
    expect(plan(record, { connected: false })).toEqual(['agent.connect']);
    expect(plan(record, { connected: true })).toEqual([]);
  });

  test('stops containers before the machine, and gives the address back last', () => {
    const record = sandboxRecord({
      state: 'ready',
      wanted: 'removed',
      machine: 'launched',
      network: 'added',
      joined: true,
      guestSandboxId: 'guest-1',
    });
    const world: World = { record, observed: { connected: true }, forgotten: false };
    expect(settle(world)).toEqual(['guest.stop', 'machine.terminate', 'network.remove', 'forget']);
  });

  test('from any record, wanting it stopped or removed leaves no machine and no network', () => {
    fc.assert(
      fc.property(anyRecord, fc.boolean(), (record, connected) => {
        fc.pre(record.wanted !== 'ready' || record.state === 'failed');
        const world: World = { record, observed: { connected }, forgotten: false };
        settle(world);
        expect(['none', 'gone']).toContain(world.record.machine);
        expect(['none', 'gone']).toContain(world.record.network);
        expect(world.forgotten).toBe(record.wanted === 'removed');
        if (!world.forgotten) expect(['stopped', 'failed']).toContain(world.record.state);
      }),
    );
  });

  test('from any record that can be ready, wanting it ready ends ready and connected', () => {
    fc.assert(
      fc.property(anyRecord, fc.boolean(), (record, connected) => {
        fc.pre(record.wanted === 'ready' && record.state !== 'failed');
        const world: World = { record, observed: { connected }, forgotten: false };
        settle(world);
        expect(world.record).toMatchObject({
          state: 'ready',
          machine: 'launched',
          network: 'added',
          joined: true,
          resize: false,
        });
        expect(world.observed.connected).toBe(true);
      }),
    );
  });
});
