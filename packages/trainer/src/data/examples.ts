/** Opening data sets, with `skip_bad` without the rows that cannot be used. */
import type { Dataset, DatasetOptions, Problem } from '@blip2/data-captions';
import { countRows, openDataset, problemLines } from '@blip2/data-captions';
import type { WorkHooks } from '../hooks';

/** Opens a split of a data set. @throws as openDataset */
export type OpenExamples = (path: string, options: DatasetOptions) => Promise<Dataset>;

/**
 * `openDataset`, which reports the rows that `skip_bad` leaves out. All splits are opened by one function, so that a bad row
 * that belongs to no split is reported once.
 */
export function examplesOpener(hooks: WorkHooks = {}): OpenExamples {
  const reported = new Set<string>();
  return async (path, options) => {
    const onProgress = (done: number, total: number) =>
      hooks.onPhase?.({ name: 'checking images', done, total });
    const dataset = await openDataset(path, { ...options, onProgress });
    const bad = (dataset.skipped ?? []).filter(({ source }) => !reported.has(source));
    for (const { source } of bad) reported.add(source);
    if (bad.length > 0) hooks.onMessage?.(listed(dataset.path, bad));
    return dataset;
  };
}

const SHOWN = 20;

function listed(path: string, bad: readonly Problem[]): string {
  const count = countRows(bad);
  const title = `${path}: left out ${count.toLocaleString('en')} bad row${count === 1 ? '' : 's'}`;
  return [title, ...problemLines(bad, SHOWN, '; blip2 data check lists all')].join('\n  ');
}
