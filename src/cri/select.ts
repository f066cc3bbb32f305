/** The containers and sandboxes that a filter means. Its parts add up: all of them must be met. */
import type { ContainerView } from '../container/service.ts';
import type { SandboxView } from '../sandbox/service.ts';
import type { CriDeps } from './deps.ts';
import { labelMatcher, selectById } from './lookup.ts';

type Labels = Readonly<Record<string, string>>;

interface SandboxFilter {
  readonly id: string;
  readonly labelSelector: Labels;
}

interface ContainerFilter extends SandboxFilter {
  readonly podSandboxId: string;
}

/** Whether it leaves anything out, its state aside. */
export function selects(filter: SandboxFilter & Partial<ContainerFilter>): boolean {
  return filter.id !== '' || (filter.podSandboxId ?? '') !== '' || Object.keys(filter.labelSelector).length > 0;
}

export function selectContainers(
  { containers, sandboxes }: Pick<CriDeps, 'containers' | 'sandboxes'>,
  filter: ContainerFilter,
): readonly ContainerView[] {
  const matches = labelMatcher(filter.labelSelector);
  const sandboxIds =
    filter.podSandboxId === ''
      ? undefined
      : new Set<string>(selectById(sandboxes.list(), filter.podSandboxId).map((sandbox) => sandbox.id));
  return selectById(containers.list(), filter.id).filter(
    (view) =>
      (sandboxIds === undefined || sandboxIds.has(view.sandboxId) || view.sandboxId === filter.podSandboxId) &&
      matches(view.config.labels),
  );
}

export function selectSandboxes(
  { sandboxes }: Pick<CriDeps, 'sandboxes'>,
  filter: SandboxFilter,
): readonly SandboxView[] {
  const matches = labelMatcher(filter.labelSelector);
  return selectById(sandboxes.list(), filter.id).filter((view) => matches(view.config.labels));
}

let grouped:
  | { readonly list: readonly ContainerView[]; readonly groups: ReadonlyMap<string, ContainerView[]> }
  | undefined;

/** The containers of each sandbox, by its id; made anew only when the list has changed. */
export function containersBySandbox(list: readonly ContainerView[]): ReadonlyMap<string, readonly ContainerView[]> {
  if (grouped?.list !== list) grouped = { list, groups: Map.groupBy(list, (view): string => view.sandboxId) };
  return grouped.groups;
}
