import fc from 'fast-check';
import { expect, test } from 'vitest';
import { directNetwork } from '../../../src/network/direct.ts';

test('the pod and its gateway are a pair, whatever the address; the hardware address follows from it', () => {
  fc.assert(
    fc.property(fc.ipV4(), (pod) => {
      const { addresses, routes, mac, netns } = directNetwork({ machine: '10.0.0.2', pod });
      const last = Number(pod.split('.')[3]);
      const gateway = pod.replace(/\d+$/, String(last % 2 === 0 ? last + 1 : last - 1));
      expect(addresses).toEqual([{ address: `${pod}/31`, gateway }]);
      expect(routes).toEqual([{ destination: '0.0.0.0/0', gateway }]);
      expect(netns).toBe('');
      const bytes = mac.split(':').map((part) => Number.parseInt(part, 16));
      expect(bytes).toEqual([0x0a, 0x58, ...pod.split('.').map(Number)]);
    }),
  );
  expect(() => directNetwork({ machine: '10.0.0.2', pod: 'fd00::1' })).toThrow(/no IPv4 address/);
});
