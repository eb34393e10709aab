/** Scores a model's texts on a data set beside the controls. Used by `fit` and `evaluate`. */
import { countsOf } from '@blip2/data-captions';
import { referencesOf } from './captions';
import type { ControlOptions } from './controls';
import { guessControls, pictureControls } from './controls';
import type { Figures, OtherTexts } from './figures';
import { figuresOf, namedFigures, prefixed } from './figures';
import type { ResultRow, ResultsTable } from './results';
import { resultRow } from './results';
import { scoreCaptions } from './score';

export interface JudgeOptions extends ControlOptions {
  /** of the model's row */
  name: string;
  /** the base's texts for the same examples */
  before?: string[];
  split?: string;
}

export interface Judgement {
  table: ResultsTable;
  figures: Figures;
  /** the texts under other conditions */
  others: OtherTexts;
  /** the references of each example */
  references: string[][];
}

/**
 * Scores the model's texts for `o.test`, and its texts without the right picture.
 * @throws the signal's reason when it is raised
 */
export async function judge(texts: string[], o: JudgeOptions): Promise<Judgement> {
  const references = o.test.map((example) => referencesOf(example, o.task));
  const under: OtherTexts = { before: o.before, ...(await pictureControls(o)) };
  const row = (name: string, kind: ResultRow['kind'], said: string[] | undefined) =>
    said ? [resultRow(name, kind, scoreCaptions(said, references, o.partsPattern))] : [];
  const rows = [
    ...row(o.name, 'model', texts),
    ...row('base, before training', 'base', under.before),
    ...row('blank image', 'control', under.blank),
    ...row('shuffled images', 'control', under.shuffled),
    ...(o.train ? await guessControls({ ...o, train: o.train }, references) : []),
  ];
  const { rows: data_rows, pictures } = countsOf(o.test);
  const parts = Object.keys(rows[0].parts);
  const table = { rows, parts, n: texts.length, data_rows, pictures, split: o.split };
  return { table, figures: figuresOf(o.task, o.test, texts, under), others: under, references };
}

/** The scores of a judgement under the names of metrics.jsonl: `test_exact`, `test_cider_d`, `test_question_only_accuracy`… */
export function namedJudgement({ table, figures }: Judgement): Record<string, number> {
  const { exact, parts } = table.rows[0];
  return prefixed(`${table.split ?? 'test'}_`, { exact, ...parts, ...namedFigures(figures) });
}
