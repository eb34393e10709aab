/** One check per rung: computes its quantities and compares them with those of the case. B rows, T tokens, V vocabulary. */
import { resolve } from 'node:path';
import {
  forward,
  generate,
  imageFeatures,
  loss,
  nextTokenProbabilities,
  pooledImage,
  qformerFeatures,
  queryEmbeds,
} from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { collate, promptBatch } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { concat, flatten, keep, slice, valueAndGrads } from '@blip2/nn';
import type { Tensor, Tensor3D, Tensor4D } from '@blip2/nn';
import { mergeLora } from '@blip2/peft-lora';
import type { Case, Check, CheckOf } from './case-file';
import { compareAll, exact } from './compare';
import type { Finding, Values } from './compare';
import { batchOf } from './inputs';
import type { Batch, Setup } from './inputs';
import { checkTrajectory } from './trajectory';

/** Runs one check. */
export async function runCheck(check: Check, setup: Setup): Promise<Finding> {
  switch (check.rung) {
    case 'pixels':
      return checkPixels(check, setup);
    case 'tokens':
      return checkTokens(check, await setup.processor());
    case 'prompts':
      return sameRows(promptBatch(await setup.processor(), check.texts), check.rows);
    case 'examples':
      return checkExamples(check, await setup.processor());
    case 'trajectory':
      return checkTrajectory(check, setup);
    case 'refused':
      return checkRefused(check, setup);
    default:
      return checkModel(check, setup, await batchOf(setup.of, check.inputs));
  }
}

type ModelRung =
  'features' | 'states' | 'logits' | 'loss' | 'gradients' | 'merged' | 'generate' | 'distribution';

async function checkModel(check: CheckOf<ModelRung>, setup: Setup, batch: Batch): Promise<Finding> {
  const { of } = setup;
  const blip2 = await setup.model();
  switch (check.rung) {
    case 'features':
      return compareAll(of, check.expect, featuresOf(blip2, batch, check.every ?? 1));
    case 'states':
      return compareAll(of, check.expect, statesOf(blip2, batch), realTextRows(batch));
    case 'logits':
      return compareAll(of, check.expect, logitsOf(blip2, batch), realTextRows(batch));
    case 'merged':
      return compareAll(of, check.expect, logitsOf(merged(blip2), batch), realTextRows(batch));
    case 'loss':
      return compareAll(of, check.expect, new Map([['loss', lossOf(blip2, batch)]]));
    case 'gradients':
      return compareAll(of, check.expect, gradientsOf(blip2, batch, Object.keys(check.expect)));
    case 'generate':
      return checkGenerate(check, setup, batch);
    case 'distribution':
      return checkDistribution(check, of, blip2, batch);
  }
}

async function checkGenerate(
  { options, ids }: CheckOf<'generate'>,
  { model, processor }: Setup,
  { image, tokens }: Batch,
): Promise<Finding> {
  const tokenizer = options.stop_strings ? (await processor()).tokenizer : undefined;
  return checkIds(await generate(await model(), image, tokens, { ...options, tokenizer }), ids);
}

async function checkPixels(check: CheckOf<'pixels'>, { of, processor }: Setup): Promise<Finding> {
  const pixel_values = await (await processor()).pixels(resolve(of.folder, check.image));
  return compareAll(of, check.expect, new Map([['pixel_values', pixel_values]]));
}

function checkTokens({ texts, ids, decoded }: CheckOf<'tokens'>, { tokenizer }: Processor): Finding {
  for (const [i, text] of texts.entries()) {
    const found = tokenizer.encode(text);
    const [a, b] = [found.join(), ids[i].join()];
    if (a !== b) return exact(false, `${JSON.stringify(text)}: expected ids ${b}, found ${a}`);
    const back = tokenizer.decode(found, true);
    if (back !== decoded[i])
      return exact(
        false,
        `${JSON.stringify(text)}: expected the text ${JSON.stringify(decoded[i])}, found ${JSON.stringify(back)}`,
      );
  }
  return exact(true, '');
}

function checkExamples({ prompts, targets, rows }: CheckOf<'examples'>, processor: Processor): Finding {
  const pairs = prompts.map((prompt, i) => ({ prompt, target: targets[i], source: `row ${i}` }));
  return sameRows(collate(pairs, processor), rows);
}

type Rows = Record<'shape' | 'input_ids' | 'attention_mask', ArrayLike<number>> & { instructions?: Rows };

function sameRows(found: Rows, expected: Rows, of = ''): Finding {
  for (const name of ['shape', 'input_ids', 'attention_mask'] as const) {
    const [a, b] = [found[name], expected[name]].map((values) => Array.from(values).join());
    if (a !== b) return exact(false, `${of}${name}: expected ${b}, found ${a}`);
  }
  if (!expected.instructions) return exact(!found.instructions, 'instructions: expected none');
  if (!found.instructions) return exact(false, 'instructions: expected rows, found none');
  return sameRows(found.instructions, expected.instructions, 'instructions: ');
}

function pixelsOf({ image }: Batch): Tensor4D {
  if (image && 'pixel_values' in image) return image.pixel_values;
  throw new Error('this check needs pixel_values');
}

function featuresOf(model: Blip2, batch: Batch, every: number): Map<string, Tensor> {
  const image = imageFeatures(model, pixelsOf(batch), batch.options);
  const { instructions } = batch.tokens;
  return new Map<string, Tensor>([
    ['image_features', everyRow(image, every)],
    ['pooled', pooledImage(model, image)],
    ['qformer', qformerFeatures(model, image, { instructions })],
    ['projected', queryEmbeds(model, image, { instructions })],
  ]);
}

/** Positions 0, every, 2·every, … of [B, N, D]. */
function everyRow(x: Tensor3D, every: number): Tensor3D {
  const [B, N, D] = x.shape;
  const at = Array.from({ length: Math.ceil(N / every) }, (_, i) => i * every);
  return every === 1
    ? x
    : concat(
        at.map((n) => slice(x, [0, n, 0], [B, 1, D])),
        1,
      );
}

function statesOf(model: Blip2, { image, tokens, options }: Batch): Map<string, Tensor> {
  const states = new Map<string, Tensor>();
  forward(model, image, tokens, { ...options, tap: (name, x) => states.set(name, keep(x)) });
  return states;
}

function logitsOf(model: Blip2, { image, tokens, options }: Batch): Map<string, Tensor> {
  return new Map([['logits', forward(model, image, tokens, options).logits]]);
}

const lossOf = (model: Blip2, { image, tokens, options }: Batch) => loss(model, image, tokens, options);

const merged = (model: Blip2): Blip2 => ({ ...model, params: mergeLora(model.params) });

function gradientsOf(model: Blip2, batch: Batch, names: string[]): Map<string, Tensor> {
  const leaves = new Map(
    [...flatten(model.params)].map(([name, leaf]) => [name.replace('.lora.', '.'), leaf]),
  );
  const known = names.filter((name) => leaves.has(name));
  const { grads } = valueAndGrads(
    () => lossOf(model, batch),
    known.map((name) => leaves.get(name)!),
  );
  return new Map(known.map((name, i) => [name, grads[i]]));
}

/** Outputs at padding are meaningless, so only rows of tokens count in the text model's tensors [B, T, …]; target rows [B, U, …] have none. */
function realTextRows({ tokens }: Batch) {
  return (name: string, i: number, shape: number[]): boolean => {
    if (!/^(language_model|logits)/.test(name) || shape[1] !== tokens.shape[1]) return true;
    return tokens.attention_mask[Math.floor(i / shape[shape.length - 1])] === 1;
  };
}

function checkIds(found: number[][], expected: number[][]): Finding {
  const row = expected.findIndex((ids, i) => ids.join() !== found[i]?.join());
  const same = row < 0 && found.length === expected.length;
  return exact(same, `row ${row}: expected ${expected[row]?.join()}, found ${found[row]?.join()}`);
}

async function checkDistribution(
  { expect, options, kept }: CheckOf<'distribution'>,
  of: Case,
  model: Blip2,
  { image, tokens }: Batch,
): Promise<Finding> {
  const rows = await nextTokenProbabilities(model, image, tokens, { ...options, do_sample: true });
  const counts = rows.map((row) => row.filter((p) => p > 0).length);
  if (counts.join() !== kept.join())
    return exact(false, `tokens that may be drawn: expected ${kept.join()}, found ${counts.join()}`);
  const all: Values = rows.flatMap((row) => [...row]);
  return compareAll(of, expect, new Map([['probabilities', all]]));
}

async function checkRefused(check: CheckOf<'refused'>, { of, model }: Setup): Promise<Finding> {
  const { image, tokens, options } = await batchOf(of, check.inputs);
  const left = Object.fromEntries(Object.entries(options).filter(([name]) => name !== check.without));
  try {
    forward(await model(), image, tokens, left);
  } catch (error) {
    const { message } = error as Error;
    return exact(
      new RegExp(check.error).test(message),
      `expected the error ${check.error}, found: ${message}`,
    );
  }
  return exact(false, 'expected an error, found a result');
}
