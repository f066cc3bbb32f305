/** `infralet doctor`: what this host can do, what is missing, and the command that mends it. */
import { join } from 'node:path';
import { InfraletError } from '../base/errors.ts';
import { systemClock } from '../base/time.ts';
import type { Check } from '../cloud/contract.ts';
import { loadProvider } from '../cloud/loader.ts';
import type { Config } from '../config/schema.ts';
import { nullLogger } from '../telemetry/log.ts';
import { hostChecks } from './host-checks.ts';
import { type Io, line } from './io.ts';

/** Returns whether everything needed is there. */
export async function doctor(config: Config, io: Io, options: { readonly json: boolean }): Promise<boolean> {
  const own = await providerChecks(config, io.signal);
  // Who runs machines here looks at the guest image more closely than this program can.
  const host = (await hostChecks(config)).filter(({ name }) => !own.some((check) => check.name.endsWith(`: ${name}`)));
  const checks = [...host, ...own];
  if (options.json) line(io.out, JSON.stringify(checks, undefined, 2));
  else printChecks(checks, io);
  return checks.every(({ ok }) => ok);
}

function printChecks(checks: readonly Check[], io: Io): void {
  const width = Math.max(...checks.map(({ name }) => name.length));
  for (const { name, ok, detail, fix } of checks) {
    line(io.out, `${ok ? '✔' : '✘'} ${name.padEnd(width)}  ${detail}`);
    if (fix !== undefined) line(io.out, `  ${''.padEnd(width)}  → ${fix}`);
  }
  const missing = checks.filter(({ ok }) => !ok).length;
  line(io.out);
  line(io.out, missing === 0 ? 'everything needed is there' : `${missing} of ${checks.length} checks failed`);
}

async function providerChecks(config: Config, signal: AbortSignal): Promise<readonly Check[]> {
  const name = `provider ${config.provider}`;
  try {
    const module = await loadProvider(config.provider);
    const section = module.parseConfig(config.providers[config.provider]);
    await using provider = await module.create(
      section,
      {
        log: nullLogger,
        clock: systemClock,
        stateDir: join(config.stateDir, 'providers', config.provider),
        guestImageDir: config.guestImageDir,
      },
      signal,
    );
    const checks = await provider.doctor(signal);
    return checks.map((check) => ({ ...check, name: `${config.provider}: ${check.name}` }));
  } catch (error) {
    signal.throwIfAborted();
    const { message, hint } = InfraletError.from(error);
    return [{ name, ok: false, detail: message, ...(hint === undefined ? {} : { fix: hint }) }];
  }
}
