/** Certificates live for hours; the channel replaces its agent's before it ends, for as long as the channel lives. */
import { backoffMs } from '../base/backoff.ts';
import { errorMessage } from '../base/errors.ts';
import type { Clock } from '../base/time.ts';
import type { AgentClient } from '../gen/infralet/agent/v1/Agent.ts';
import type { InstallResponse__Output } from '../gen/infralet/agent/v1/InstallResponse.ts';
import type { RenewResponse__Output } from '../gen/infralet/agent/v1/RenewResponse.ts';
import type { NodePki } from '../pki/authority.ts';
import type { Logger } from '../telemetry/log.ts';
import { unary } from './calls.ts';

/** One call of the renewal; nobody waits for it. */
const CALL_MS = 30_000;
/** A clock may be set forward meanwhile, and certificates end by the clock. */
const LONGEST_SLEEP_MS = 60_000;
const RETRY = { initialMs: 1000, maxMs: 300_000, factor: 2, jitter: 0.2 };

export interface RenewalOptions {
  readonly client: AgentClient;
  readonly pki: NodePki;
  readonly uri: string;
  /** End of the current certificate, milliseconds since the epoch. */
  readonly notAfter: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Runs until the signal fires; never throws. */
export async function keepRenewed(options: RenewalOptions, signal: AbortSignal): Promise<void> {
  let { notAfter } = options;
  let failures = 0;
  let earliest = 0;
  while (!signal.aborted) {
    const due = Math.max(notAfter - options.pki.renewBefore, earliest) - options.clock.now();
    const pause = failures > 0 ? backoffMs(RETRY, failures) : Math.max(due, 0);
    const early = failures === 0 && pause > LONGEST_SLEEP_MS;
    const slept = await options.clock.sleep(early ? LONGEST_SLEEP_MS : pause, signal).then(
      () => true,
      () => false,
    );
    if (!slept) return;
    if (early) continue;
    try {
      notAfter = await renew(options, signal);
      failures = 0;
      // A life that is shorter than renewBefore must not make this a tight loop.
      earliest = options.clock.now() + (notAfter - options.clock.now()) / 3;
      options.log.debug('agent certificate renewed', { notAfter: new Date(notAfter).toISOString() });
    } catch (error) {
      if (signal.aborted) return;
      failures += 1;
      options.log.warn('agent certificate not renewed yet', {
        error: errorMessage(error),
        notAfter: new Date(notAfter).toISOString(),
      });
    }
  }
}

async function renew({ client, pki, uri }: RenewalOptions, signal: AbortSignal): Promise<number> {
  const call = { signal, timeoutMs: CALL_MS };
  const { csr } = await unary<RenewResponse__Output>('Renew', call, (grpc, done) => client.Renew({}, grpc, done));
  const signed = await pki.signAgent(csr, uri);
  const chain = [...signed.chain];
  await unary<InstallResponse__Output>('Install', call, (grpc, done) => client.Install({ chain }, grpc, done));
  return signed.notAfter;
}
