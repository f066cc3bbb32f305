/** Ids as clients give them: whole, or a prefix that fits one thing only. */
import { InfraletError } from '../base/errors.ts';
import { nonEmpty, text } from './validate/fields.ts';

interface Lookup<View extends { readonly id: string }> {
  get(id: string): View;
}

/** Longest thing that somebody may take for an id. */
const MAX_ID = 128;

export function checkId(path: string, id: string): string {
  nonEmpty(path, id);
  text(path, id, MAX_ID);
  return id;
}

/** Throws NOT_FOUND. */
export function lookUp<View extends { readonly id: string }>(service: Lookup<View>, path: string, id: string): View {
  return service.get(checkId(path, id));
}

/** For Stop and Remove, which succeed on what is gone: the whole id where there is one, else what was given. */
export function wholeId<View extends { readonly id: string }>(
  service: Lookup<View>,
  path: string,
  id: string,
): View['id'] {
  checkId(path, id);
  try {
    return service.get(id).id;
  } catch (error) {
    if (error instanceof InfraletError && error.code === 'NOT_FOUND') return id;
    throw error;
  }
}

/** The views that a filter's id means: all for '', else at most one. */
export function selectById<View extends { readonly id: string }>(views: readonly View[], id: string): readonly View[] {
  if (id === '') return views;
  const exact = views.filter((view) => view.id === id);
  if (exact.length > 0) return exact;
  const starting = views.filter((view) => view.id.startsWith(id));
  return starting.length === 1 ? starting : [];
}

type Labels = Readonly<Record<string, string>>;

/** A predicate for a label selector: every pair must be there. */
export function labelMatcher(selector: Labels): (labels: Labels) => boolean {
  const wanted = Object.entries(selector);
  return (labels) => wanted.every(([key, value]) => labels[key] === value);
}
