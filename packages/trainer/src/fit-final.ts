/** The end of a run: the table on examples kept apart, and the files of the result. */
import { existsSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';
import { saveModel } from '@blip2/blip2';
import type { Example } from '@blip2/data-captions';
import { presetLora, saveAdapter } from '@blip2/peft-lora';
import { resolveModel } from '@blip2/weights';
import type { ResultsTable } from './evaluation';
import {
  generateCaptions,
  partNames,
  referenceOf,
  resultRow,
  runControls,
  scoreCaptions,
} from './evaluation';
import { finalSplit } from './fit-data';
import type { CacheHooks, Session } from './fit-session';
import { captionOptions } from './fit-session';
import type { SampleRow } from './report/run-files';

/** The functions that judge a model; others may stand in for them. */
export interface FitParts {
  generateCaptions: typeof generateCaptions;
  scoreCaptions: typeof scoreCaptions;
  runControls: typeof runControls;
}

export const EVALUATION: FitParts = { generateCaptions, scoreCaptions, runControls };

/** What the model says now about the examples of the final table. @throws the signal's reason when it is raised */
export async function finalCaptions(
  session: Session,
  parts: FitParts,
  hooks: CacheHooks,
  name: string,
): Promise<string[] | undefined> {
  const final = finalSplit(session.config, session.data);
  if (!final) return undefined;
  const { examples } = final.dataset;
  return parts.generateCaptions(session.model, session.processor, examples, {
    ...captionOptions(session, examples),
    signal: hooks.signal,
    onProgress: (done, total) => hooks.onPhase?.({ name, done, total }),
  });
}

/**
 * The final table and the samples behind it; `before` is what the base said about the same images.
 * @throws the signal's reason when it is raised
 */
export async function finalEvaluation(
  session: Session,
  parts: FitParts,
  hooks: CacheHooks,
  before: string[] | undefined,
): Promise<{ table: ResultsTable; samples: SampleRow[] } | undefined> {
  const { config, data } = session;
  const final = finalSplit(config, data);
  if (!final) return undefined;
  const { examples } = final.dataset;
  const after = (await finalCaptions(session, parts, hooks, `captioning ${final.split}`))!;
  const references = examples.map((example) => referenceOf(example, config.task));
  const score = parts.scoreCaptions(after, references, config.parts_pattern);
  const controls = config.controls ? await controlRows(session, parts, hooks, examples, before) : [];
  const rows = [resultRow('fine-tuned', 'model', score), ...controls];
  const names = partNames(config.parts_pattern);
  const samples = examples.map(({ image, question }, i) => ({
    image,
    ...(question === undefined ? {} : { question }),
    reference: references[i],
    ...(before ? { before: before[i] } : {}),
    after: after[i],
  }));
  return { table: { rows, parts: names, n: examples.length, split: final.split }, samples };
}

function controlRows(
  session: Session,
  parts: FitParts,
  hooks: CacheHooks,
  test: Example[],
  baseCaptions: string[] | undefined,
) {
  const { config, model, processor, data } = session;
  return parts.runControls({
    ...captionOptions(session, test),
    signal: hooks.signal,
    model,
    processor,
    train: data.train.examples,
    validation: data.validation?.examples,
    test,
    partsPattern: config.parts_pattern,
    baseCaptions,
    seed: config.seed,
    onControl: (name) => hooks.onMessage?.(`control: ${name}`),
  });
}

/** Saves what was trained: a PEFT adapter folder when LoRA is in it, otherwise a whole model. Returns the folder. */
export async function saveResult({ config, dir, model }: Session): Promise<string> {
  const lora = presetLora(config.preset, config.lora);
  const folder = join(dir, lora ? 'adapter' : 'model');
  if (lora) {
    const base_model_name_or_path = plainPath(config.model);
    await saveAdapter(folder, model.params, { ...lora, base_model_name_or_path });
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
