/** `infralet doctor`: what this host can do, what is missing, and the command that mends it. */
import type { AdminClient } from '../admin/client.ts';
import { InfraletError } from '../base/errors.ts';
import type { Check } from '../cloud/contract.ts';
import type { Config } from '../config/schema.ts';
import { hostChecks } from './host-checks.ts';
import { type Io, line } from './io.ts';
import { openProvider } from './open-provider.ts';

/** A probe for KVM boots a guest. */
const CHECKS_MS = 60_000;

/** Returns whether everything needed is there. */
export async function doctor(
  config: Config,
  admin: AdminClient,
  io: Io,
  options: { readonly json: boolean },
): Promise<boolean> {
  const own = await providerChecks(config, admin, io.signal);
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

/** Those of the daemon's own provider; where no daemon runs, of one opened for the purpose: two would get in each other's way. */
async function providerChecks(config: Config, admin: AdminClient, signal: AbortSignal): Promise<readonly Check[]> {
  const checks = await runningChecks(admin, signal).catch((error: unknown) => {
    if (InfraletError.from(error).code !== 'UNAVAILABLE') throw error;
    return openedChecks(config, signal);
  });
  return checks.map((check) => ({ ...check, name: `${config.provider}: ${check.name}` }));
}

async function runningChecks(admin: AdminClient, signal: AbortSignal): Promise<readonly Check[]> {
  return await admin.doctor({ signal, timeoutMs: CHECKS_MS });
}

async function openedChecks(config: Config, signal: AbortSignal): Promise<readonly Check[]> {
  try {
    await using provider = await openProvider(config, signal);
    return await provider.doctor(signal);
  } catch (error) {
    signal.throwIfAborted();
    const { message, hint } = InfraletError.from(error);
    return [{ name: 'provider', ok: false, detail: message, ...(hint === undefined ? {} : { fix: hint }) }];
  }
}
