/** Commands about the node as a whole, and the socket that they go through. */
import { readFile, stat } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { adminSocket } from '../../../src/admin/protocol.ts';
import type { Orphan } from '../../../src/sandbox/sweeper.ts';
import { type CliDaemon, cliDaemon, ID } from '../../support/cli-daemon.ts';

const ORPHANS: readonly Orphan[] = [
  { kind: 'machine', id: 'i-0123', sandboxId: ID, ageMs: 7_200_000, pricePerHour: 0.5 },
  { kind: 'disk', id: 'vol-1', sandboxId: '', ageMs: 45_000, pricePerHour: null },
];
let daemon: CliDaemon;
beforeEach(async () => {
  daemon = await cliDaemon();
});
afterEach(async () => await daemon[Symbol.asyncDispose]());

describe('orphans', () => {
  it('lists what belongs to nobody with age and price, and removes what it has listed', async () => {
    const removed: string[] = [];
    await using _admin = await daemon.serve({
      orphans: {
        orphans: async () => ORPHANS,
        remove: async (named) => {
          removed.push(...named.map(({ kind, id }) => `${kind}/${id}`));
          return named.map(({ kind, id }) => ({
            kind,
            id,
            outcome: kind === 'disk' ? 'failed' : 'removed',
            reason: '',
          }));
        },
      },
    });
    const shown = await daemon.run('orphans');
    expect(shown.code).toBe(0);
    expect(shown.out).toMatch(/machine +i-0123 +2h +0\.5000 +a{32}\ndisk +vol-1 +45s +- +-\n/);
    expect(shown.out).toContain('together 0.5000 USD per hour');
    expect(removed).toEqual([]);
    const second = await daemon.run('orphans', '--delete');
    expect(second.code).toBe(1);
    expect(removed).toEqual(['machine/i-0123', 'disk/vol-1']);
    expect(second.out).toMatch(/i-0123 .* removed\n.*vol-1 .* could not be removed/);
  });
});

describe('doctor', () => {
  it("asks the running daemon's provider instead of opening a second one", async () => {
    await using _admin = await daemon.serve({
      doctor: async () => [{ name: 'machines', ok: false, detail: 'none left', fix: 'make room' }],
    });
    const shown = await daemon.run('doctor', '--json');
    expect(JSON.parse(shown.out)).toContainEqual({
      name: 'qemu: machines',
      ok: false,
      detail: 'none left',
      fix: 'make room',
    });
  });
});

describe('the admin socket', () => {
  it('lets root only use the socket, and removes it at the end', async () => {
    const { mode } = await (async () => {
      await using _admin = await daemon.serve({});
      return await stat(adminSocket(daemon.socket));
    })();
    expect(mode & 0o777).toBe(0o600);
    await expect(readFile(adminSocket(daemon.socket))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
