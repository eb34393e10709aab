/** Applies one mutation at a time and counts the checks that detect it. */
import type { Case, Check } from './case-file';
import { injectKernels, mutations } from './mutations';
import type { Mutation } from './mutations';
import { runCase } from './run-case';

export interface Caught {
  name: string;
  /** `case / rung / check` of every check that turned red. */
  caught: string[];
  /** How many checks ran. */
  of: number;
}

/** For each mutation the checks that catch it. Trajectories, which take longest, run for optimizers only. */
export async function sensitivity(
  cases: readonly Case[],
  report: (line: string) => void = () => {},
  applied: readonly Mutation[] = mutations,
): Promise<Caught[]> {
  const results: Caught[] = [];
  for (const mutation of applied) {
    const result = await tryMutation(cases, mutation);
    report(`${result.name}: ${result.caught.length} of ${result.of} checks are red`);
    results.push(result);
  }
  return results;
}

async function tryMutation(cases: readonly Case[], { name, kernels, changes }: Mutation): Promise<Caught> {
  const optimizer = kernels !== undefined && 'NnAdamW' in kernels;
  const selected = ({ rung }: Check) => optimizer === (rung === 'trajectory');
  const restore = injectKernels(kernels ?? {});
  try {
    const result: Caught = { name, caught: [], of: 0 };
    for (const of of cases) {
      const rows = await runCase(of, selected, changes);
      result.of += rows.length;
      for (const row of rows) if (!row.ok) result.caught.push(`${row.case} / ${row.rung} / ${row.name}`);
    }
    return result;
  } finally {
    restore();
  }
}

/** A Markdown table: mutation, red checks of all, their rungs, and the first of them. */
export function formatSensitivity(results: readonly Caught[]): string {
  const rows = results.map(({ name, caught, of }) => {
    const rungs = [...new Set(caught.map((at) => at.split(' / ')[1]))].join(', ');
    return `| ${name} | ${caught.length} of ${of} | ${rungs || '–'} | ${caught[0] ?? '**not caught**'} |`;
  });
  return ['| mutation | red checks | rungs | for example |', '| --- | --- | --- | --- |', ...rows].join('\n');
}
