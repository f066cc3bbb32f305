/** The compatibility page as text, from the tables. Pure. */
import { COVERAGE, CRITEST } from './critest.ts';
import { type Entry, TREATMENTS, type Treatment } from './entry.ts';
import type { Cri } from './proto.ts';
import { RPCS } from './rpcs.ts';
import { entryOf, SECTIONS, WINDOWS_MESSAGES } from './table.ts';

const HEAD = `# Compatibility with the CRI

What Infralet does with every RPC and every field of the Kubernetes Container Runtime Interface, \`runtime.v1\`, as of
Kubernetes 1.36. This page is generated: \`npm run compatibility\` writes it from the tables in
\`test/compatibility\`, and \`test/conformance/compatibility.test.ts\` holds the tables against the proto file and against the running
server: a field that is missing here fails the tests.
`;

export function compatibilityPage(cri: Cri): string {
  return [
    HEAD,
    '## RPCs\n',
    ...rpcTable(cri),
    '## Fields\n',
    'Each field is treated in one of these ways.\n',
    ...table(
      ['word', 'meaning'],
      treatmentsUsed(cri).map((word) => [word, TREATMENTS[word]]),
    ),
    ...SECTIONS.flatMap(({ title, fields }) => [
      `### ${title}\n`,
      ...Object.keys(fields).flatMap((name) => messageTable(cri, name)),
    ]),
    '### Windows\n',
    'Infralet runs Linux only. These messages are refused in requests and never set in answers, with all their fields:\n',
    `${WINDOWS_MESSAGES.map((name) => `\`${name}\``).join(', ')}.\n`,
    '## critest\n',
    'Specs that do not pass:\n',
    ...table(
      ['spec', 'critest', '', 'reason'],
      CRITEST.map(({ spec, versions, outcome, reason }) => [spec, versions, outcome, reason]),
    ),
    "Who has no critest finds the same ground in the project's own tests:\n",
    ...table(
      ['critest', 'tests here'],
      COVERAGE.map(({ group, tests }) => [group, tests.map((file) => `\`${file}\``).join(', ')]),
    ),
  ]
    .join('\n')
    .replace(/\n+$/, '\n');
}

function rpcTable({ rpcs }: Cri): string[] {
  return table(
    ['service', 'RPC', '', 'remarks'],
    rpcs.map(({ service, name }) => {
      const entry = RPCS[name];
      return [service, `\`${name}\``, entry?.there ? 'yes' : 'UNIMPLEMENTED', entry?.note ?? ''];
    }),
  );
}

function messageTable(cri: Cri, name: string): string[] {
  const fields = cri.messages.get(name) ?? [];
  return table(
    [`\`${name}\``, '', 'remarks'],
    fields.map((field) => {
      const { treatment, note }: Entry = entryOf(`${name}.${field.name}`) ?? { treatment: 'unused', note: 'MISSING' };
      return [`\`${field.name}\``, treatment, note];
    }),
  );
}

function treatmentsUsed(cri: Cri): readonly Treatment[] {
  const used = new Set<Treatment | undefined>();
  for (const [name, fields] of cri.messages) {
    for (const field of fields) used.add(entryOf(`${name}.${field.name}`)?.treatment);
  }
  return (Object.keys(TREATMENTS) as Treatment[]).filter((word) => used.has(word));
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), `|${'---|'.repeat(head.length)}`, ...rows.map(line), ''];
}
