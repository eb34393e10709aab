/** `blip2 compare`: runs side by side, in a table and on a page. */
import { resolve } from 'node:path';
import { compare, comparisonTable, writeComparison } from '@blip2/trainer';
import type { Comparison } from '@blip2/trainer';
import type { Command } from 'commander';
import { UsageError } from '../errors';
import { command } from '../options';
import { paint } from '../printable';
import type { Ui } from '../ui';
import { columns } from '../ui';

export function compareCommand(ui: Ui): Command {
  return command(
    'compare',
    'Compare runs: which is best, whether by more than noise, and what differs in their settings.',
    'blip2 compare runs/first runs/second --output compare.html',
  )
    .argument('<run...>', 'run folders of fit')
    .option('--output <file>', 'also write a page with the curves of all runs')
    .action((dirs: string[], { output }: { output?: string }) => compareAction(dirs, output, ui));
}

async function compareAction(given: string[], output: string | undefined, ui: Ui): Promise<void> {
  const dirs = [...new Map(given.map((dir) => [resolve(dir), dir])).values()];
  if (dirs.length < 2) throw new UsageError(`compare: expected two or more runs, found ${dirs.join(', ')}`);
  const { runs, comparison } = await compare(dirs);
  if (output !== undefined) await writeComparison(output, runs, comparison);
  ui.result({ ...comparison, ...(output !== undefined && { written: output }) }, () =>
    [describe(comparison), ...(output === undefined ? [] : [`the page is ${output}`])].join('\n\n'),
  );
}

function describe(comparison: Comparison): string {
  const { runs, best, settings, sentences } = comparison;
  const [head, ...lines] = columns(comparisonTable(comparison)).split('\n');
  const table = lines.map((line, i) => (runs[i].name === best ? paint.bold(line) : line));
  const names = runs.map(({ name }) => name);
  const differences = [
    ['settings that differ', ...names],
    ...settings.map(({ name, values }) => [name, ...values]),
  ];
  return [
    [paint.dim(head), ...table].join('\n'),
    settings.length > 0 ? columns(differences) : 'no settings differ',
    sentences.join('\n'),
  ].join('\n\n');
}
