/** What skopeo says on stderr → an error that a user of kubectl understands. Pure. */
import { type ErrorCode, InfraletError } from '../base/errors.ts';
import type { Source } from './skopeo.ts';

interface Rule {
  readonly pattern: RegExp;
  readonly code: ErrorCode;
  /** Completes "image X: …". */
  readonly what: (source: Source) => string;
  readonly hint: (source: Source) => string;
}

const at = (source: Source): string => (source.registry === undefined ? 'the file' : `registry ${source.registry}`);

/** In order: the first that matches decides. */
const RULES: readonly Rule[] = [
  {
    pattern:
      /invalid username\/password|unauthorized|authentication required|unable to retrieve auth token|status code 401|401 \(Unauthorized\)/i,
    code: 'UNAUTHENTICATED',
    what: (source) =>
      source.credentials
        ? `${at(source)} refused the credentials`
        : `${at(source)} asks for credentials and the pull had none for it`,
    hint: (source) =>
      source.credentials
        ? `check user name and password in the imagePullSecret for ${source.registry ?? 'it'}, and that the repository exists`
        : `give the pod an imagePullSecret for ${source.registry ?? 'it'}, and check that the repository exists`,
  },
  {
    pattern: /denied: |requested access to the resource is denied|status code 403|403 \(Forbidden\)/i,
    code: 'PERMISSION_DENIED',
    what: (source) => `${at(source)} denied access`,
    hint: (source) =>
      source.credentials
        ? 'give the account of the imagePullSecret the right to pull this repository, and check its name'
        : `check the name; a private repository needs an imagePullSecret for ${source.registry ?? 'it'}`,
  },
  {
    pattern: /Source image rejected|Running image .* is rejected by policy|registry .* is blocked|signature/i,
    code: 'FAILED_PRECONDITION',
    what: () => "this node's policy forbids the image",
    hint: () => 'see containers-policy.json(5) and containers-registries.conf(5) of this node',
  },
  {
    pattern:
      /manifest unknown|name unknown|repository name not known|MANIFEST_UNKNOWN|NAME_UNKNOWN|reading manifest .* 404|status code 404|404 \(Not Found\)/i,
    code: 'NOT_FOUND',
    what: (source) => `${at(source)} has no such image`,
    hint: () => 'check repository and tag for typing errors, and that the image was pushed',
  },
  {
    pattern: /no image found in (?:manifest list|image index) for architecture/i,
    code: 'NOT_FOUND',
    what: (source) => `${at(source)} has it for other platforms only`,
    hint: () => "use an image built for this node's platform",
  },
  {
    pattern: /server gave HTTP response to HTTPS client/i,
    code: 'UNAVAILABLE',
    what: (source) => `${at(source)} speaks plain HTTP`,
    hint: (source) =>
      `serve it by HTTPS, or mark it in registries.conf: [[registry]] location = "${source.registry ?? ''}" insecure = true`,
  },
  {
    pattern: /x509: |tls: |certificate/i,
    code: 'UNAVAILABLE',
    what: (source) => `${at(source)} has a certificate this node does not trust`,
    hint: (source) =>
      `put its CA into the configured image.certsDir or /etc/containers/certs.d, as ${source.registry ?? ''}/ca.crt`,
  },
  {
    pattern: /too ?many ?requests|status code 429|429 \(Too Many Requests\)/i,
    code: 'RESOURCE_EXHAUSTED',
    what: (source) => `${at(source)} limits the rate of pulls`,
    hint: () => 'wait, use credentials with a higher limit, or set up a mirror in registries.conf',
  },
  {
    pattern: /no space left on device/i,
    code: 'RESOURCE_EXHAUSTED',
    what: () => "the image store's disk is full",
    hint: () => 'free space in the state directory or move it to a larger disk',
  },
  {
    pattern:
      /connection refused|connection reset|no such host|i\/o timeout|network is unreachable|no route to host|EOF|server misbehaving|Client\.Timeout|TLS handshake timeout|deadline exceeded|status(?: code|:) 5\d\d|\b50[0-4] \(/i,
    code: 'UNAVAILABLE',
    what: (source) => `${at(source)} could not be reached or broke off`,
    hint: (source) =>
      `check that ${source.registry ?? 'it'} is up and that this node reaches it (name resolution, routes, proxy)`,
  },
  {
    pattern: /did not match|does not match (?:expected )?digest|digest mismatch|verification failed/i,
    code: 'DATA_LOSS',
    what: (source) => `${at(source)} sent something else than its digest promises`,
    hint: () => 'the registry or a cache before it holds a damaged image; push it again',
  },
];

/** The error for a failed run. The reason is skopeo's own last words; credentials are never among them. */
export function skopeoError(source: Source, stderr: string): InfraletError {
  const reason = lastWords(stderr);
  // A mirror that lacks the image says nothing about its registry, whose own answer stands behind the mirrors'.
  const own = reason.replace(/\(Mirrors also failed: \[.*\]\)/, '');
  const rule = RULES.find(({ pattern }) => pattern.test(own));
  const what = rule?.what(source) ?? `${at(source)} did not deliver it`;
  return new InfraletError(rule?.code ?? 'UNKNOWN', `pulling image ${source.image}: ${what}: ${reason}`, {
    hint: rule?.hint(source) ?? 'the log of the daemon and `skopeo inspect` say more',
    context: { image: source.image, ...(source.registry === undefined ? {} : { registry: source.registry }) },
  });
}

/** The `msg` of the last log line, without its quotes; the last line where it is not in that form. */
function lastWords(stderr: string): string {
  const line = stderr.trim().split('\n').at(-1) ?? '';
  const logged = /msg="((?:[^"\\]|\\.)*)"/.exec(line)?.[1]?.replaceAll('\\"', '"').replaceAll('\\n', ' ') ?? line;
  // What the sink's side of the copy saw is noise; the cause stands behind it.
  const message = logged.split('happened during read: ').at(-1) ?? logged;
  return message.length <= 1000 ? message : `${message.slice(0, 1000)}…`;
}
