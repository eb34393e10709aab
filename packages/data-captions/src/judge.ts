/**
 * Whether a row can be used. `data check`, `fit` and `evaluate`, with and without `skip_bad`, all ask here, so they name the
 * same rows in the same words. Errors: a text or path that is missing, empty or of the wrong type, wrongly decoded text, a
 * text that does not fit the task or the model, an image that is not found or cannot be decoded. Anything else that is
 * unusual (duplicates, suspicious words, odd sizes, texts that `truncate` cuts) is a warning of `data check`.
 */
import type { TextOptions } from './collate';
import { textPair, trainingRow } from './collate';
import { withImage } from './decode-image';
import type { Problem } from './errors';
import { countRows, DataError } from './errors';
import type { Example } from './example';
import { allAnswers, allCaptions } from './example';
import type { Row } from './formats/row';
import { ADVICE, faultOf } from './image-errors';
import type { Processor } from './processor';
import { toExample } from './to-example';

/** What texts are used for; without a task, a question is for `vqa` and a caption for `caption`. */
export interface TextRules extends Partial<TextOptions> {
  /** Its tokenizer finds texts that are too long and special tokens. */
  processor?: Processor;
}

/** Converts a row to an example; if its texts or path are bad, adds to `problems` and returns undefined. */
export function judgeRow(row: Row, rules: TextRules, problems: Problem[]): Example | undefined {
  const example = toExample(row, problems);
  const found = example ? textProblems(example, rules) : [];
  problems.push(...found);
  return found.length > 0 ? undefined : example;
}

/** Checks every text that training may draw. */
function textProblems(example: Example, { task, processor, ...options }: TextRules): Problem[] {
  const problems: Problem[] = [];
  const tasks = task
    ? [task]
    : [
        ...(example.caption === undefined ? [] : ['caption' as const]),
        ...(example.question === undefined ? [] : ['vqa' as const]),
      ];
  for (const one of tasks) {
    try {
      const pair = textPair(example, one, options.prompt);
      const targets = new Set(one === 'vqa' ? allAnswers(example) : allCaptions(example));
      if (processor)
        for (const target of targets) trainingRow({ ...pair, target }, processor, options, problems);
    } catch (error) {
      if (!(error instanceof DataError) || error.problems.length === 0) throw error;
      problems.push(...error.problems);
    }
  }
  return problems;
}

/** Why an image cannot be used, without its name; undefined if it can. */
export async function imageFault(image: string): Promise<string | undefined> {
  return withImage(image, {}, () => undefined).then(
    () => undefined,
    (error: unknown) => faultOf(image, error),
  );
}

/** The error that lists all bad rows of a data set of `total` rows. */
export function rowsError(path: string, problems: readonly Problem[], total: number): DataError {
  const count = countRows(problems);
  const advice = count < total ? ADVICE : 'repair them';
  return new DataError(`${path}: ${count} of ${total} rows cannot be used; ${advice}`, problems);
}
