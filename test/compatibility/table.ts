/** The tables of all fields, put together. */
import { type Entry, type Fields, windows } from './entry.ts';
import { ANSWERS } from './fields/answers.ts';
import { CONTAINER } from './fields/container.ts';
import { IMAGE } from './fields/image.ts';
import { NODE } from './fields/node.ts';
import { SANDBOX } from './fields/sandbox.ts';
import { SECURITY } from './fields/security.ts';
import { STATS } from './fields/stats.ts';
import type { FieldKey } from './proto.ts';

/** In the page's order. */
export const SECTIONS: readonly { readonly title: string; readonly fields: Fields }[] = [
  { title: 'The node', fields: NODE },
  { title: 'Pod sandboxes', fields: SANDBOX },
  { title: 'Containers', fields: CONTAINER },
  { title: 'Security', fields: SECURITY },
  { title: 'Answers about pods and containers', fields: ANSWERS },
  { title: 'Images', fields: IMAGE },
  { title: 'Statistics and metrics', fields: STATS },
];

/** Messages of another operating system, with all their fields. */
export const WINDOWS_MESSAGES = [
  'WindowsPodSandboxConfig',
  'WindowsSandboxSecurityContext',
  'WindowsNamespaceOption',
  'WindowsContainerConfig',
  'WindowsContainerSecurityContext',
  'WindowsContainerResources',
  'WindowsCpuGroupAffinity',
  'WindowsPodSandboxStats',
  'WindowsContainerStats',
  'WindowsCpuUsage',
  'WindowsMemoryUsage',
  'WindowsNetworkUsage',
  'WindowsNetworkInterfaceUsage',
  'WindowsProcessUsage',
  'WindowsFilesystemUsage',
] as const;

const ENTRIES: ReadonlyMap<FieldKey, Entry> = new Map(
  SECTIONS.flatMap(({ fields }) =>
    Object.entries(fields).flatMap(([message, entries]) =>
      Object.entries(entries).map(([field, entry]): [FieldKey, Entry] => [`${message}.${field}`, entry]),
    ),
  ),
);

export function entryOf(key: FieldKey): Entry | undefined {
  const windowsMessage = WINDOWS_MESSAGES.some((message) => key.startsWith(`${message}.`));
  return ENTRIES.get(key) ?? (windowsMessage ? windows() : undefined);
}

/** Fields that the tables name. */
export const LISTED_FIELDS: readonly FieldKey[] = [...ENTRIES.keys()];
