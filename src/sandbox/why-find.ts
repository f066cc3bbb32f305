/** Which sandbox somebody means who names a pod: those that are there, and those that the journal still knows. */
import { InfraletError } from '../base/errors.ts';
import type { Journal } from '../state/journal.ts';
import { parseSandboxRecord, type SandboxRecord } from './record.ts';
import type { SandboxStore } from './store.ts';

export interface Found {
  readonly record: SandboxRecord;
  /** Milliseconds since the epoch; undefined: it is there. */
  readonly removedAt: number | undefined;
}

/** Most that are named beside the one that is told of. */
const MAX_OTHERS = 20;

/** The newest sandbox that `text` names, and the others, the newest first. Throws NOT_FOUND. */
export function findSandboxes(
  deps: { readonly store: SandboxStore; readonly journal: Journal },
  text: string,
): { readonly found: Found; readonly others: readonly Found[] } {
  const named = matcher(text);
  const live = deps.store.all().map(({ record }): Found => ({ record, removedAt: undefined }));
  const all = [...live, ...ended(deps.journal)].filter(({ record }) => named(record));
  const [found, ...others] = all.toSorted((a, b) => b.record.createdAt - a.record.createdAt);
  if (found) return { found, others: others.slice(0, MAX_OTHERS) };
  throw new InfraletError('NOT_FOUND', `there is no pod ${text}, and none that was removed lately`, {
    hint: 'give NAMESPACE/NAME, a name, a pod uid or the beginning of a sandbox id; `infralet ps` lists the sandboxes',
  });
}

function* ended(journal: Journal): Iterable<Found> {
  for (const { record, at } of journal.ended()) {
    try {
      yield { record: parseSandboxRecord(record), removedAt: at };
    } catch {
      // Kept by another version that wrote something else: nothing depends on it.
    }
  }
}

function matcher(text: string): (record: SandboxRecord) => boolean {
  const slash = text.indexOf('/');
  const [namespace, name] = slash < 0 ? [undefined, text] : [text.slice(0, slash), text.slice(slash + 1)];
  return ({ id, podUid, podName, podNamespace, pool }) =>
    id.startsWith(text) ||
    (pool === '' && (podUid === text || (podName === name && (namespace === undefined || podNamespace === namespace))));
}
