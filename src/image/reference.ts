/** Image names as every container tool reads them: registry, repository, tag or digest. Pure. */
import { InfraletError } from '../base/errors.ts';
import { type Digest, parseDigest } from '../base/ids.ts';

export interface Reference {
  /** Host and port of the registry: "docker.io", "registry.example:5000". */
  readonly registry: string;
  /** Repository within the registry: "library/busybox". */
  readonly repository: string;
  /** Absent where the name carries a digest: the digest alone decides. */
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

const DEFAULT_REGISTRY = 'docker.io';
const DEFAULT_REGISTRY_ALIASES: readonly string[] = ['index.docker.io', 'registry-1.docker.io'];
const REGISTRY =
  /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]{1,5})?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const TAG = /^\w[\w.-]{0,127}$/;
const BARE_ID = /^[0-9a-f]{64}$/;
const MAX_NAME = 255;

/** Reads a name; fills in "docker.io", "library/" and ":latest". Throws INVALID_ARGUMENT that says what is wrong with it. */
export function parseReference(text: string): Reference {
  const [beforeDigest = '', digestText, ...more] = text.split('@');
  if (text.length === 0) throw invalid(text, 'it is empty');
  if (text.length > 4096) throw invalid(`${text.slice(0, 64)}…`, 'it is too long');
  if (more.length > 0) throw invalid(text, 'it has more than one "@"');
  if (BARE_ID.test(beforeDigest)) throw invalid(text, 'it is an image id, not a name');
  const digest = digestText === undefined ? undefined : digestOf(text, digestText);
  const { name, tag } = splitTag(beforeDigest);
  if (tag !== undefined && !TAG.test(tag)) throw invalid(text, `the tag ${JSON.stringify(tag)} is malformed`);
  const { registry, repository } = splitRegistry(name);
  if (!REGISTRY.test(registry)) throw invalid(text, `the registry ${JSON.stringify(registry)} is malformed`);
  checkRepository(text, registry, repository);
  return { registry, repository, tag: digest ? undefined : (tag ?? 'latest'), digest };
}

/** "registry/repository". */
export function repositoryName(reference: Reference): string {
  return `${reference.registry}/${reference.repository}`;
}

/** The whole normalised name, with its tag or its digest. */
export function formatReference(reference: Reference): string {
  const name = repositoryName(reference);
  return reference.digest === undefined ? `${name}:${reference.tag ?? 'latest'}` : `${name}@${reference.digest}`;
}

/** The whole name of what a user wrote; undefined for what is none (an id, garbage): a look-up simply finds nothing then. */
export function normalisedName(text: string): string | undefined {
  try {
    return formatReference(parseReference(text));
  } catch {
    return undefined;
  }
}

/** The registry's host as `AuthConfig.serverAddress` may spell it: with scheme, path, or one of Docker Hub's other names. */
export function registryOfServerAddress(address: string): string {
  const host = address.replace(/^[a-z]+:\/\//i, '').replace(/\/.*$/, '');
  return DEFAULT_REGISTRY_ALIASES.includes(host) ? DEFAULT_REGISTRY : host;
}

function splitTag(text: string): { readonly name: string; readonly tag: string | undefined } {
  const colon = text.lastIndexOf(':');
  if (colon < 0 || text.indexOf('/', colon) >= 0) return { name: text, tag: undefined };
  return { name: text.slice(0, colon), tag: text.slice(colon + 1) };
}

/** The first component is a registry when it could be a host: it has a dot or a port, is "localhost", or has capitals. */
function splitRegistry(name: string): { readonly registry: string; readonly repository: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isRegistry = slash > 0 && (/[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first);
  const registry = isRegistry ? first : DEFAULT_REGISTRY;
  const rest = isRegistry ? name.slice(slash + 1) : name;
  if (registry !== DEFAULT_REGISTRY && registry !== DEFAULT_REGISTRY_ALIASES[0]) return { registry, repository: rest };
  return { registry: DEFAULT_REGISTRY, repository: rest.includes('/') ? rest : `library/${rest}` };
}

function checkRepository(text: string, registry: string, repository: string): void {
  if (repository.toLowerCase() !== repository) throw invalid(text, 'the repository must be lower case');
  const bad = repository.split('/').find((component) => !COMPONENT.test(component));
  if (bad !== undefined) throw invalid(text, `the repository's part ${JSON.stringify(bad)} is malformed`);
  if (registry.length + 1 + repository.length > MAX_NAME)
    throw invalid(text, `it is longer than ${MAX_NAME} characters`);
}

function digestOf(text: string, digest: string): Digest {
  try {
    return parseDigest(digest);
  } catch (cause) {
    throw invalid(text, `${JSON.stringify(digest)} is not "sha256:" and 64 hex digits`, cause);
  }
}

function invalid(text: string, why: string, cause?: unknown): InfraletError {
  return new InfraletError('INVALID_ARGUMENT', `${JSON.stringify(text)} is not an image name: ${why}`, {
    hint: 'write it as [registry[:port]/]repository[:tag] or [registry[:port]/]repository@sha256:<64 hex digits>',
    cause,
  });
}
