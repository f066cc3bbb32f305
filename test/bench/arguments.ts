/** Options of the bench programs. */

/** A list of whole numbers such as "100,1000". Throws with the option's name. */
export function counts(option: string, text: string): readonly number[] {
  const numbers = text.split(',').map(Number);
  if (numbers.some((each) => !Number.isInteger(each) || each < 1)) {
    throw new Error(`--${option} ${text}: whole numbers from 1 on, separated by commas`);
  }
  return numbers;
}

export function count(option: string, text: string): number {
  const [only, ...more] = counts(option, text);
  if (only === undefined || more.length > 0) throw new Error(`--${option} ${text}: one whole number`);
  return only;
}

export function socketPath(endpoint: string): string {
  if (!endpoint.startsWith('unix:///')) throw new Error(`${endpoint}: an endpoint looks like unix:///run/x.sock`);
  return endpoint.slice('unix://'.length);
}
