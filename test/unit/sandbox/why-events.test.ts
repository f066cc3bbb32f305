import { expect, test } from 'vitest';
import { phaseSeconds } from '../../../src/sandbox/meters.ts';
import { whyEvents } from '../../../src/sandbox/why-events.ts';
import { sandboxRecord } from '../../support/sandbox-records.ts';

const record = sandboxRecord({ timeline: { asked: 1000, turn: 1002, kernel: 1500, failed: 1700 }, reason: 'no room' });
const step = (at: number, name: string, outcome: 'intent' | 'done' | 'failed' | 'note', detail = '') => ({
  ...{ at, step: name, outcome, detail },
});

test('steps have their times, tries after each other are told apart, and a guest names no phases', () => {
  const steps = [
    step(1001, 'machine.launch', 'intent'),
    step(1005, 'machine.launch', 'note', 'a clone failed'),
    step(1600, 'machine.launch', 'failed', 'no room'),
    step(1650, 'machine.launch', 'intent'),
  ];
  const events = whyEvents(record, steps, 1800, false);
  expect(events.map(({ ms, name, outcome, tookMs }) => [ms, name, outcome, tookMs])).toEqual([
    [0, 'asked', '', undefined],
    [1, 'machine.launch', 'failed', 599],
    [2, 'turn', '', undefined],
    [5, 'machine.launch', '', undefined],
    [650, 'machine.launch', 'open', 150],
    [700, 'failed', '', undefined],
  ]);
  expect(events.at(-1)?.text).toContain('no room');
});

test('a step that the end of the daemon cut off is interrupted, and so is one of a sandbox that is gone', () => {
  const steps = [step(1001, 'guest.run', 'intent'), step(1100, 'guest.run', 'intent')];
  const outcomes = (gone: boolean) =>
    whyEvents(record, steps, 2000, gone).flatMap(({ kind, outcome }) => (kind === 'step' ? [outcome] : []));
  expect(outcomes(false)).toEqual(['interrupted', 'open']);
  expect(outcomes(true)).toEqual(['interrupted', 'interrupted']);
});

test('an end whose beginning was dropped from a long list is told of all the same', () => {
  const events = whyEvents(record, [step(1300, 'ready', 'failed', 'disk full')], 2000, false);
  expect(events.find(({ name }) => name === 'ready')).toMatchObject({ outcome: 'failed', text: 'disk full' });
});

test('phases last from what they wait for; clocks that were set back give no negative times', () => {
  const timeline = { asked: 0, turn: 10, network: 100, launch: 60, enrolled: 560, connected: 600, joined: 90 };
  expect(Object.fromEntries(phaseSeconds(timeline))).toEqual({
    ...{ turn: 0.01, network: 0.09, launch: 0.05, enrolled: 0.5, connected: 0.04, joined: 0 },
  });
});
