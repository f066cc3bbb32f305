/** The end of a machine's console, for people. */
import { InfraletError } from '../base/errors.ts';
import type { InstanceId } from '../base/ids.ts';
import type { Provider } from '../cloud/contract.ts';

/** Console text is the guest's: control characters must not reach a terminal or a log as they are. */
export function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\n]/g, '').trim();
}

/** Never throws: an error message must not be lost to the lack of a console. */
export async function consoleTail(
  provider: Provider,
  id: InstanceId,
  maxBytes: number,
  signal: AbortSignal,
): Promise<string> {
  try {
    return printable(await provider.console(id, maxBytes, signal));
  } catch (error) {
    return `(no console: ${InfraletError.from(error).message})`;
  }
}
