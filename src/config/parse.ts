/** From the text of a configuration file to the compiled configuration, or to every problem in it with its line. */
import { type Document, isMap, isPair, LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { allPaths, configJsonSchema, knownKeys } from './json-schema.ts';
import { violations } from './rules.ts';
import { type Config, configSchema } from './schema.ts';
import { nearest } from './suggest.ts';

export interface Problem {
  /** Dotted path of the setting; empty for the file as a whole. */
  readonly path: string;
  /** Counted from 1; undefined when the setting is not in the file. */
  readonly line: number | undefined;
  readonly message: string;
}

export type ParsedConfig =
  | { readonly ok: true; readonly config: Config }
  | { readonly ok: false; readonly problems: readonly Problem[] };

/** A file larger than this is not a configuration. */
const MAX_CHARACTERS = 1024 * 1024;

export function parseConfig(text: string): ParsedConfig {
  if (text.length > MAX_CHARACTERS) return failed([{ path: '', line: undefined, message: 'is larger than 1 MiB' }]);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  if (document.errors.length > 0) {
    return failed(
      document.errors.map(({ message, pos }) => ({
        path: '',
        line: lines.linePos(pos[0]).line,
        message: sentence(message),
      })),
    );
  }
  const locate = (path: readonly PropertyKey[], key: boolean): number | undefined => {
    const offset = position(document, path, key);
    return offset === undefined ? undefined : lines.linePos(offset).line;
  };
  let data: unknown;
  try {
    data = document.toJS({ maxAliasCount: 100 }) ?? {};
  } catch (error) {
    return failed([{ path: '', line: undefined, message: error instanceof Error ? error.message : String(error) }]);
  }
  const result = configSchema.safeParse(data);
  if (!result.success) {
    return failed(result.error.issues.flatMap((issue) => describeIssue(issue, data, locate)));
  }
  const broken = violations(result.data);
  if (broken.length > 0) {
    return failed(broken.map(({ path, message }) => ({ path: path.join('.'), line: locate(path, true), message })));
  }
  return { ok: true, config: result.data };
}

/** "line 4: server.sokket: unknown key; did you mean server.socket?" */
export function formatProblem({ path, line, message }: Problem): string {
  return [line === undefined ? '' : `line ${line}: `, path === '' ? '' : `${path}: `, message].join('');
}

function failed(problems: readonly Problem[]): ParsedConfig {
  return { ok: false, problems: problems.toSorted((a, b) => (a.line ?? 0) - (b.line ?? 0)) };
}

function describeIssue(
  issue: z.core.$ZodIssue,
  data: unknown,
  locate: (path: readonly PropertyKey[], key: boolean) => number | undefined,
): readonly Problem[] {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => {
      const path = [...issue.path, key];
      return { path: dotted(path), line: locate(path, true), message: unknownKey(issue.path, key) };
    });
  }
  const value = valueAt(data, issue.path);
  const shown = issue.code === 'custom' || value === undefined ? '' : ` (it is ${excerpt(value)})`;
  return [{ path: dotted(issue.path), line: locate(issue.path, false), message: `${sentence(issue.message)}${shown}` }];
}

function unknownKey(section: readonly PropertyKey[], key: string): string {
  const schema = configJsonSchema();
  const here = nearest(key, knownKeys(section, schema));
  if (here !== undefined) return `unknown key; did you mean ${dotted([...section, here])}?`;
  const paths = allPaths(schema);
  const name = nearest(
    key,
    paths.map((path) => path.split('.').at(-1) ?? ''),
  );
  const elsewhere = name === undefined ? undefined : paths.find((path) => path === name || path.endsWith(`.${name}`));
  if (elsewhere !== undefined) return `unknown key here; did you mean ${elsewhere}?`;
  return 'unknown key';
}

/** Offset in the text of the value at `path`, or of its key; of the nearest enclosing node when it is absent. */
function position(document: Document, path: readonly PropertyKey[], key: boolean): number | undefined {
  let node: unknown = document.contents;
  let offset: number | undefined;
  for (const [index, step] of path.entries()) {
    if (!isMap(node)) {
      const item: unknown = document.getIn(path.slice(0, index + 1), true);
      node = item;
      offset = startOf(item) ?? offset;
      continue;
    }
    const pair: unknown = node.items.find((item) => isPair(item) && String(item.key) === String(step));
    if (!isPair(pair)) break;
    const last = index === path.length - 1;
    offset = (last && !key ? startOf(pair.value) : undefined) ?? startOf(pair.key) ?? offset;
    node = pair.value;
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  if (typeof node !== 'object' || node === null || !('range' in node) || !Array.isArray(node.range)) return undefined;
  const start: unknown = node.range[0];
  return typeof start === 'number' ? start : undefined;
}

function valueAt(data: unknown, path: readonly PropertyKey[]): unknown {
  let at = data;
  for (const key of path) {
    if (typeof at !== 'object' || at === null) return undefined;
    at = Reflect.get(at, key);
  }
  return at;
}

function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length <= 60 ? text : `${text.slice(0, 60)}…`;
}

function dotted(path: readonly PropertyKey[]): string {
  return path.map(String).join('.');
}

function sentence(message: string): string {
  return message.replace(/^Invalid (input|string|option|number): /, '').trim();
}
