/** The result of a run: trained weights, scores and samples. */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { checkStoredFiles } from '@blip2/nn';
import type { Tie } from '@blip2/nn';
import type { LoraConfig } from '@blip2/peft-lora';
import { saveAdapter } from '@blip2/peft-lora/node';
import type { FitConfig } from '../config';
import type { FinalEvaluation } from '../evaluation/final';
import { nextStep } from '../evaluation/next-step';
import { endOf, overfitting } from '../evaluation/overfitting';
import type { Verdict } from '../evaluation/verdict';
import { verdict } from '../evaluation/verdict';
import type { FitHooks } from '../hooks';
import type { Kind } from '../objective';
import type { RunResults } from '../report';
import { readRun } from '../report/run-files';
import type { Placed } from '../stages';
import type { TrainState } from '../train/train';
import { writeJson, writeJsonl } from './folder';
import type { MetricRow } from './logs';
import { openLogs } from './logs';
import { weightOptions } from './weight-options';

/**
 * Saves the trained weights: a PEFT adapter folder if they include LoRA, otherwise a whole model. Returns the folder.
 * @param saveWhole writes the whole model
 * @throws Error for a weight file that was rewritten since it was opened
 */
export async function saveTrained(
  { config, model, adapter }: { config: FitConfig; model: { params: object }; adapter?: LoraConfig },
  ties: readonly Tie[],
  saveWhole: (folder: string) => Promise<unknown>,
): Promise<string> {
  checkStoredFiles();
  const folder = join(config.output_dir, adapter ? 'adapter' : 'model');
  if (adapter) {
    const named = { ...adapter, base_model_name_or_path: plainPath(config.model) };
    await saveAdapter(folder, model.params, named, ties);
  } else await saveWhole(folder);
  return folder;
}

/**
 * A relative path such as models/base looks like a name on the hub, so it gets ./ in front. A folder that
 * came from the hub (`hf download --local-dir` leaves .cache/huggingface in it) keeps its name.
 */
function plainPath(model: string): string {
  if (!existsSync(model) || isAbsolute(model) || /^\.\.?[\\/]/.test(model)) return model;
  return existsSync(join(model, '.cache', 'huggingface')) ? model : `./${model}`;
}

/** results.json, samples.jsonl, and the last row of metrics.jsonl. Returns the verdict. */
export async function writeResults<K extends Kind>(
  run: Placed<K>,
  state: TrainState,
  final: FinalEvaluation | undefined,
  hooks: FitHooks,
): Promise<RunResults> {
  const { config } = run;
  const dir = config.output_dir;
  if (final) {
    const row = { step: state.step, ...final.row };
    await (await openLogs(dir, config)).metrics(row);
    hooks.onMetrics?.(row);
    await writeJsonl(join(dir, 'samples.jsonl'), final.samples);
  }
  const { metrics } = await readRun(dir);
  const judged = verdict({
    evidence: final?.evidence,
    steps: state.step,
    loss: lossCourse(metrics),
    overfitting: overfitting(metrics),
  });
  const made = results(run, state, final, judged);
  await writeJson(join(dir, 'results.json'), made);
  return made;
}

/** The first training loss, and that of the end. */
function lossCourse(metrics: MetricRow[]): { first: number; last: number } | undefined {
  const losses = metrics.flatMap(({ loss }) => loss ?? []);
  return losses.length < 2 ? undefined : { first: losses[0], last: endOf(metrics)! };
}

function results<K extends Kind>(
  run: Placed<K>,
  state: TrainState,
  final: FinalEvaluation | undefined,
  judged: Verdict,
): RunResults {
  const { config, objective, adapter, final: held, data, line, backend } = run;
  const { train, validation, test } = data;
  const example = held?.dataset.examples[0] ?? train.examples[0];
  const weights = weightOptions(config, adapter ? 'adapter' : 'model');
  const finished = { config, recommended: objective.recommended(run), example, weights };
  return {
    verdict: judged,
    next: nextStep(judged, finished, (one) => objective.tryIt(one)),
    table: final?.table,
    figures: final?.figures,
    trainable: line,
    data: {
      train: train.examples.length,
      validation: validation?.examples.length,
      test: test?.examples.length,
    },
    steps: state.step,
    train_seconds: state.seconds,
    backend: backend.name,
  };
}
