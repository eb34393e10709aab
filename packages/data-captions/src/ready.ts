/** Texts checked and tokenised once, for all epochs and evaluations of a run. */
import type { TextOptions, TrainingRow } from './collate';
import { textPair, trainingRow } from './collate';
import type { Dataset } from './dataset';
import type { Problem } from './errors';
import { DataError } from './errors';
import type { Processor } from './processor';

/** A data set with the tokens of its texts: the first caption, or the commonest answer. */
export interface ReadyDataset extends Dataset {
  /** Options with which the texts were checked and tokenised. */
  readonly texts: TextOptions;
  /** Tokens of example number `index`. */
  rows(index: number): TrainingRow;
}

/** @throws DataError that lists every example without the texts that the task needs */
export function checkTask(dataset: Dataset, { task, prompt }: Pick<TextOptions, 'task' | 'prompt'>): void {
  const problems: Problem[] = [];
  for (const example of dataset.examples) {
    try {
      textPair(example, task, prompt);
    } catch (error) {
      if (!(error instanceof DataError) || error.problems.length === 0) throw error;
      problems.push(...error.problems);
    }
  }
  if (problems.length > 0) {
    const what = `${problems.length} of ${dataset.examples.length} examples do not fit the task "${task}"`;
    throw new DataError(`${dataset.path}: ${what}`, problems);
  }
}

/**
 * Tokenises every text of a data set into one array: 4 bytes per token and 12 per text.
 * @param onProgress is called with the number of texts done
 * @throws DataError for examples without the texts that the task needs, and for texts that are too long or contain
 *   special tokens
 */
export function readyDataset(
  dataset: Dataset,
  processor: Processor,
  texts: TextOptions,
  onProgress?: (done: number) => void,
): ReadyDataset {
  const { examples, path } = dataset;
  const problems: Problem[] = [];
  const all: number[] = [];
  const ends = new Int32Array(3 * examples.length + 1); // of the start, target and instruction of each text, in `all`
  for (const [i, example] of examples.entries()) {
    const pair = textPair(example, texts.task, texts.prompt);
    const row = trainingRow(pair, processor, texts, problems);
    [row.start, row.target, row.instruction ?? []].forEach((part, k) => {
      for (const id of part) all.push(id);
      ends[3 * i + k + 1] = all.length;
    });
    if ((i + 1) % REPORTED === 0 || i + 1 === examples.length) onProgress?.(i + 1);
  }
  if (problems.length > 0)
    throw new DataError(`${path}: ${problems.length} of ${examples.length} texts cannot be used`, problems);
  const ids = Int32Array.from(all);
  const part = (i: number) => ids.subarray(ends[i], ends[i + 1]);
  const rows = (i: number) => ({
    start: part(3 * i),
    target: part(3 * i + 1),
    ...(processor.qformer && { instruction: part(3 * i + 2) }),
  });
  return { ...dataset, texts, rows };
}

/** Texts between two calls of `onProgress`. */
const REPORTED = 64;
