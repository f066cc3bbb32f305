/** `infralet volume`: from the command line through a running node to the provider. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { adminSocket } from '../../../src/admin/protocol.ts';
import { startAdminServer } from '../../../src/admin/server.ts';
import { errorMessage, InfraletError } from '../../../src/base/errors.ts';
import { runCommand } from '../../../src/cli/program.ts';
import type { Volumes } from '../../../src/cloud/contract.ts';
import { nullLogger } from '../../../src/telemetry/log.ts';
import { captureIo } from '../../support/cli-io.ts';
import { podConfig } from '../../support/sandbox-records.ts';
import { World } from '../../support/world.ts';

test('a volume goes to the machine of the pod that is named, and back; what cannot be is said', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'infralet-volume-'));
  const [socket, config] = [join(directory, 'cri.sock'), join(directory, 'infralet.yaml')];
  await writeFile(config, `server:\n  socket: ${socket}\nstateDir: ${directory}\n`);
  const world = await World.make(directory, { isolation: { templateSharing: 'off' } });
  const runtime = world.start();
  const never = async (): Promise<never> => {
    throw new Error('nobody asks for it');
  };
  const { volumes, list, pools, describe, why, orphans } = runtime;
  const admin = await startAdminServer({
    ...{ path: adminSocket(socket), volumes, list, pools, describe, why, orphans, drainMs: 100, log: nullLogger },
    ...{ images: { load: never }, doctor: never, explainSize: never },
  });
  try {
    const metadata = { name: 'db', uid: 'uid-db', namespace: 'shop', attempt: 0 };
    const id = await runtime.sandboxes.run(podConfig({ metadata }), '', AbortSignal.timeout(20_000));
    const machine = String(runtime.sandboxes.describe(id)['instanceId']);
    const command = async (...words: readonly string[]) => {
      const io = captureIo();
      const ended = await runCommand(['volume', ...words, '--config', config], io).then(String, errorMessage);
      return `${io.stdout()}${ended}`;
    };
    expect(await command('attach', 'shop/db', 'vol-1')).toBe(
      'the provider fake has no volumes to attach; volumes of CSI plugins reach pods as live shares, whatever makes the machines',
    );
    const held = new Map<string, string>();
    const fake: Volumes = {
      attach: async (instance, volume) => {
        if (volume === 'vol-2') throw new InfraletError('INVALID_ARGUMENT', 'there is no volume vol-2');
        held.set(volume, instance);
        return { serial: volume.replace('-', '') };
      },
      detach: async (_instance, volume) => void held.delete(volume),
    };
    Object.assign(world.provider, { volumes: fake });
    expect(await command('attach', 'shop/db', 'vol-1')).toBe('attached; its serial in the machine: vol1\n0');
    expect([...held]).toEqual([['vol-1', machine]]);
    expect(await command('attach', id.slice(0, 8), 'vol-2')).toBe('there is no volume vol-2');
    expect(await command('detach', 'uid-db', 'vol-1')).toBe('0');
    expect([...held]).toEqual([]);
    expect(await command('attach', 'shop/nobody', 'vol-1')).toContain('there is no pod shop/nobody');
    await runtime.sandboxes.stop(id, AbortSignal.timeout(20_000));
    expect(await command('attach', 'db', 'vol-1')).toContain('the pod db has no machine now');
  } finally {
    await admin[Symbol.asyncDispose]();
    await runtime[Symbol.asyncDispose]();
    await rm(directory, { recursive: true });
  }
});
