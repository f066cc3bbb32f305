/** The end of a machine's console, for people. */
import { InfraletError } from '../base/errors.ts';
import type { InstanceId } from '../base/ids.ts';
import { printable } from '../base/text.ts';
import type { Provider } from '../cloud/contract.ts';

/** Never throws: an error message must not be lost to the lack of a console. */
export async function consoleTail(
  provider: Provider,
  id: InstanceId,
  maxBytes: number,
  signal: AbortSignal,
): Promise<string> {
  try {
    return printable(await provider.console(id, maxBytes, signal)).trim();
  } catch (error) {
    return `(no console: ${InfraletError.from(error).message})`;
  }
}
