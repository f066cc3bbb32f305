/**
 * A daemon to be killed: opens the QEMU provider, launches one machine, prints it, waits. Arguments: state directory, image
 * directory, configuration section as JSON, token.
 */
import { provider } from '../../providers/qemu/index.ts';
import { systemClock } from '../../src/base/time.ts';
import { nullLogger } from '../../src/telemetry/log.ts';

const [stateDir = '', guestImageDir = '', section = '{}', token = ''] = process.argv.slice(2);
const signal = AbortSignal.timeout(120_000);
const context = { log: nullLogger, clock: systemClock, stateDir, guestImageDir, owner: {} };
const opened = await provider.create(provider.parseConfig(JSON.parse(section)), context, signal);
process.stdout.write('open\n');
const shape = { cpuMillis: 1000, memoryBytes: 256 * 2 ** 20, diskBytes: 0 };
const [result] = await opened.launch([{ token, tags: { test: 'child' }, shape, userData: '{}' }], signal);
process.stdout.write(result?.ok ? `${JSON.stringify(result.instance)}\n` : `${String(result?.error)}\n`);
await systemClock.sleep(120_000, signal);
