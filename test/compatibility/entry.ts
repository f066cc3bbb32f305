/** How this runtime treats one field or RPC of the CRI: a word that the tests check, and a remark for readers. */

/** What each word promises; the page prints it. The tests check all but `done` and `unused`, which need a machine or an eye. */
export const TREATMENTS = {
  done: 'Infralet acts on it, on the node.',
  guest: 'Reaches containerd in the machine as it was sent; containerd and the guest kernel act on it.',
  shown: 'Kept, and shown by statuses and lists as it was sent.',
  limited: 'Acted on; some values are refused with an error that names the field.',
  refused: 'Any value is refused with an error that names the field or the mount.',
  unused: 'Accepted without effect.',
  filled: 'Set in answers.',
  measured: 'Set in answers, from what the guest kernel measures.',
  empty: 'Never set in answers.',
  windows: 'Windows only: refused in requests, never set in answers.',
} as const;

export type Treatment = keyof typeof TREATMENTS;

export interface Entry {
  readonly treatment: Treatment;
  /** Part of a sentence for the page; may be empty where the word says it all. */
  readonly note: string;
}

const entry =
  (treatment: Treatment) =>
  (note = ''): Entry => ({ treatment, note });

export const done = entry('done');
export const guest = entry('guest');
export const shown = entry('shown');
export const limited = entry('limited');
export const refused = entry('refused');
export const unused = entry('unused');
export const filled = entry('filled');
export const measured = entry('measured');
export const empty = entry('empty');
export const windows = entry('windows');

/** Message, then field, both as the proto file spells them. */
export type Fields = Readonly<Record<string, Readonly<Record<string, Entry>>>>;
