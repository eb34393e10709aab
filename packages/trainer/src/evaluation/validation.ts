/** Evaluations during training: the validation data, and texts for a few images. */
import type { FitConfig } from '../config';
import { greaterIsBetter } from '../config';
import { evaluateLoss } from '../model/parts';
import type { Kind } from '../objective';
import { spread } from '../report/spread';
import type { TrainingSample } from '../run/logs';
import type { Cached } from '../stages';
import { sumNumbers } from '../train/world';
import { referenceOf, referencesOf } from './captions';
import { figuresOf, namedFigures, prefixed } from './figures';
import { scoreCaptions } from './score';
import { textsOf } from './texts';

/**
 * One evaluation on the validation data, divided among the ranks. Rank 0 alone records the row.
 * @returns the score that selects the best weights: lower is better, and it is equal on every rank
 */
export async function validate<K extends Kind>(
  run: Cached<K>,
  at: { step: number; epoch: number },
  record: (row: Record<string, number>) => Promise<void>,
): Promise<number> {
  const { config, data, world } = run;
  const begin = performance.now();
  const row: Record<string, number> = { ...at };
  row.eval_loss = await evaluateLoss(run, data.lossRows!);
  Object.assign(row, await run.objective.scores(run));
  let score = 0;
  if (world.rank === 0) {
    row.eval_seconds = (performance.now() - begin) / 1000;
    await record(row);
    score = ranking(config, row);
  }
  return (await sumNumbers(world, [score]))[0];
}

/** With predict_with_generate, scores of the texts that the model generates now, as eval_exact, eval_cider_d, eval_accuracy… */
export async function generatedScores(run: Cached): Promise<Record<string, number>> {
  const { task, parts_pattern, predict_with_generate } = run.config;
  if (!predict_with_generate) return {};
  const { examples } = run.data.validation!;
  const texts = await textsOf(run, examples);
  const references = examples.map((example) => referencesOf(example, task));
  const { exact, parts } = scoreCaptions(texts, references, parts_pattern);
  return prefixed('eval_', { exact, ...parts, ...namedFigures(figuresOf(task, examples, texts)) });
}

/** The metric that selects the best weights, negated if higher is better. */
function ranking(config: FitConfig, row: Record<string, number>): number {
  const { metric_for_best_model: name, greater_is_better = greaterIsBetter(name) } = config;
  return greater_is_better ? -row[name] : row[name];
}

/** The texts that the model generates now for a few images, always the same ones. */
export async function trainingSamples(run: Cached, step: number): Promise<TrainingSample[]> {
  const { config, data } = run;
  const examples = spread((data.validation ?? data.train).examples, config.num_samples);
  const texts = await textsOf(run, examples);
  return examples.map((example, i) => ({
    step,
    image: example.image,
    ...(example.question === undefined ? {} : { question: example.question }),
    reference: referenceOf(example, config.task),
    text: texts[i],
  }));
}
