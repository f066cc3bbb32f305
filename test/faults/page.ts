/** The reliability page as text, from what the matrix has yielded. Pure. */
import { CLOUDS } from './clouds.ts';
import { INCIDENTS, type IncidentResult } from './incidents.ts';
import { type CellResult, SEEDS, WHENS } from './matrix.ts';
import { ANSWERS, type Answer } from './outside.ts';
import { ROWS, type Row } from './rows.ts';

const BEGIN = '<!-- made by npm run reliability: do not edit -->';
const END = '<!-- end -->';
const MARKS = new RegExp(`(${BEGIN}[^]*?${END})`);

/** The page with its tables made anew; what people wrote around them stays. */
export function reliabilityPage(
  page: string,
  results: readonly CellResult[],
  incidents: readonly IncidentResult[],
): string {
  const parts = page.split(MARKS);
  if (parts.length !== 5) throw new Error('docs/reliability.md has lost the marks around its tables');
  return parts
    .with(1, `${BEGIN}\n\n${matrixTable(results)}\n\n${END}`)
    .with(3, `${BEGIN}\n\n${incidentTable(incidents)}\n\n${END}`)
    .join('');
}

function incidentTable(incidents: readonly IncidentResult[]): string {
  const lines = INCIDENTS.map(({ name, because }) => {
    const outcomes = new Set(incidents.filter((each) => each.name === name).map(({ outcome }) => outcome));
    return [name, [...outcomes].join(' or '), because];
  });
  return [['what happens', 'the pod', 'because'], ['---', '---', '---'], ...lines]
    .map((cells) => `| ${cells.join(' | ')} |`)
    .join('\n');
}

function matrixTable(results: readonly CellResult[]): string {
  const answers = Object.keys(ANSWERS) as Answer[];
  const columns = answers.flatMap((answer) => WHENS.map((when) => ({ answer, when })));
  const head = ['step', 'effect', ...columns.map(({ answer, when }) => `${answer}, ${when}`)];
  const lines = ROWS.map((row) => [
    row.step === 'container' ? 'container' : `\`${row.step}\``,
    row.what,
    ...columns.map(({ answer, when }) => cell(results, row, answer, when)),
  ]);
  const green = results.filter(({ failure }) => failure === undefined).length;
  return [
    `${green} of ${results.length} runs (${CLOUDS.length} clouds, ${SEEDS.length} seeds) ended as they must.`,
    '',
    ...[head, head.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`),
  ].join('\n');
}

function cell(results: readonly CellResult[], row: Row, answer: Answer, when: CellResult['when']): string {
  const runs = results.filter((each) => each.row === row && each.answer === answer && each.when === when);
  const failed = runs.filter(({ failure }) => failure !== undefined);
  return failed.length === 0 ? `✓ ${runs.length}` : `✗ ${failed.length} of ${runs.length}`;
}
