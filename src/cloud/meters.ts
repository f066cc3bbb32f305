/** Figures of what is asked of the cloud: calls, throttles, and what waits for its turn. */
import type { Meters, Reading } from '../telemetry/meters.ts';
import type { Provider, ProviderFigures } from './contract.ts';

/** Of providers that call a cloud; local ones have none. */
export function measureCloud(meters: Meters, provider: Pick<Provider, 'figures'>): void {
  if (!provider.figures) return;
  const figures = (): ProviderFigures => provider.figures?.() ?? { calls: [], classes: [] };
  const calls = (value: 'count' | 'seconds') => (): readonly Reading[] =>
    figures().calls.map((each): Reading => [{ class: each.class, outcome: each.outcome }, each[value]]);
  const labels = ['class', 'outcome'];
  meters.read('counter', 'infralet_cloud_calls_total', 'Calls to the cloud: ok, or the fault.', labels, calls('count'));
  meters.read('counter', 'infralet_cloud_call_seconds_total', 'Time that calls took.', labels, calls('seconds'));
  const classes = (value: 'waiting' | 'throttles') => (): readonly Reading[] =>
    figures().classes.map((each): Reading => [{ class: each.class }, each[value]]);
  const waiting = 'Calls that wait for their turn, so that the cloud does not throttle.';
  meters.read('gauge', 'infralet_cloud_waiting', waiting, ['class'], classes('waiting'));
  const throttles = 'Calls that the cloud has refused for coming too often.';
  meters.read('counter', 'infralet_cloud_throttles_total', throttles, ['class'], classes('throttles'));
}
