/** The end of a run: the table on examples kept apart, and the files of the result. */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { adapterBase } from '@blip2/blip2';
import { saveModel } from '@blip2/blip2/node';
import { presetLora } from '@blip2/peft-lora';
import { saveAdapter } from '@blip2/peft-lora/node';
import { resolveModel } from '@blip2/weights/node';
import type { Figures, ResultsTable } from '.';
import { judge, namedJudgement } from '.';
import { finalSplit } from '../data/open';
import type { CacheHooks, Session } from '../data/batches';
import { captionOptions, textsOf } from '../data/batches';
import type { SampleRow } from '../report/run-files';

/** What the model says now about the examples of the final table. @throws the signal's reason when it is raised */
export async function finalTexts(
  session: Session,
  hooks: CacheHooks,
  name: string,
): Promise<string[] | undefined> {
  const final = finalSplit(session.config, session.data);
  return final && textsOf(session, final.dataset.examples, progressOf(hooks, name));
}

const progressOf = (hooks: CacheHooks, name: string) => ({
  signal: hooks.signal,
  onProgress: (done: number, total: number) => hooks.onPhase?.({ name, done, total }),
});

export interface FinalEvaluation {
  table: ResultsTable;
  figures: Figures;
  samples: SampleRow[];
  /** the same figures as a row of metrics.jsonl */
  row: Record<string, number>;
}

/**
 * The final table, figures, and the samples behind them; `before` is what the base said about the same images.
 * @throws the signal's reason when it is raised
 */
export async function finalEvaluation(
  session: Session,
  hooks: CacheHooks,
  before: string[] | undefined,
): Promise<FinalEvaluation | undefined> {
  const { config, data, model, processor } = session;
  const final = finalSplit(config, data);
  if (!final) return undefined;
  const { split, dataset } = final;
  const test = dataset.examples;
  const after = await textsOf(session, test, progressOf(hooks, `captioning ${split}`));
  const judgement = await judge(after, {
    ...captionOptions(session, test),
    ...{ name: 'fine-tuned', split, model, processor, test, before },
    ...(config.controls && { train: data.train.examples, validation: data.validation?.examples }),
    partsPattern: config.parts_pattern,
    seed: config.seed,
    signal: hooks.signal,
    onControl: (name) => hooks.onMessage?.(`control: ${name}`),
  });
  const { table, figures, references } = judgement;
  const samples = test.map(({ image, question }, i) => ({
    image,
    ...(question === undefined ? {} : { question }),
    reference: references[i],
    ...(before ? { before: before[i] } : {}),
    after: after[i],
  }));
  return { table, figures, samples, row: namedJudgement(judgement) };
}

/** Saves what was trained: a PEFT adapter folder when LoRA is in it, otherwise a whole model. Returns the folder. */
export async function saveResult({ config, dir, model }: Session): Promise<string> {
  const base = adapterBase(model.config);
  const lora = presetLora(config.preset, config.lora, base);
  const folder = join(dir, lora ? 'adapter' : 'model');
  if (lora) {
    const base_model_name_or_path = plainPath(config.model);
    await saveAdapter(folder, model.params, { ...lora, base_model_name_or_path }, base.ties);
  } else await saveModel(model, folder, { copyFrom: resolveModel(config.model) });
  return folder;
}

/**
 * A relative path such as models/base reads like a name on the hub; with ./ in front nobody takes it for one. A folder that
 * came from the hub (`hf download --local-dir` leaves .cache/huggingface in it) keeps its name.
 */
function plainPath(model: string): string {
  if (!existsSync(model) || isAbsolute(model) || /^\.\.?[\\/]/.test(model)) return model;
  return existsSync(join(model, '.cache', 'huggingface')) ? model : `./${model}`;
}
