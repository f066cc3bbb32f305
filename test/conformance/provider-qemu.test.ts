/** The QEMU provider against the suite for all providers, with the real guest image. Needs root. */
import { until } from '../../src/base/time.ts';
import { guestImage } from '../support/guest.ts';
import { qemuPlace } from '../support/qemu.ts';
import { providerSuite } from './provider-suite.ts';

providerSuite(
  'qemu',
  async () => {
    const place = await qemuPlace();
    return {
      durable: true,
      open: place.open,
      consoleReady: async (provider, id, signal) =>
        await until(
          async () => {
            const text = await provider.console(id, 4000, signal);
            return text.length > 10 ? text : undefined;
          },
          { everyMs: 50, signal },
        ),
      leftovers: place.leftovers,
      [Symbol.asyncDispose]: async () => await place[Symbol.asyncDispose](),
    };
  },
  { offers: ['usage', 'clone', 'resize'], prepare: guestImage },
);
