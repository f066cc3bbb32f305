/** The fake provider against the suite for all providers. */
import { systemClock } from '../../src/base/time.ts';
import { loadProvider } from '../../src/cloud/loader.ts';
import { nullLogger } from '../../src/telemetry/log.ts';
import { providerSuite } from './provider-suite.ts';

const loaded = await loadProvider('fake');

providerSuite(
  'fake',
  async () => ({
    durable: false,
    open: async (signal) =>
      await loaded.create(
        loaded.parseConfig({ hourlyPrice: 0.05 }),
        { log: nullLogger, clock: systemClock, stateDir: '', guestImageDir: '', owner: {} },
        signal,
      ),
    consoleReady: async (provider, id, signal) => await provider.console(id, 1000, signal),
    leftovers: async () => [],
    [Symbol.asyncDispose]: async () => undefined,
  }),
  { offers: ['clone', 'power', 'resize', 'hourlyPrice'] },
);
