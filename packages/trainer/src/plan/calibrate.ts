/**
 * Times of training steps, of the frozen parts and of generation, with real kernels at the model's widths. Layers are alike, so a
 * deep model is timed with few layers of each part, and once more with one part a little deeper.
 */
import { adapterBase, generate, loss, stagesOf } from '@blip2/blip2';
import type { Blip2, ImageInput } from '@blip2/blip2';
import {
  dispose,
  flatten,
  globalNorm,
  normal,
  recordedBytes,
  rngKey,
  tensor,
  tidy,
  valueAndGrads,
} from '@blip2/nn';
import type { Tensor, Tensor4D } from '@blip2/nn';
import { applyPreset, presetOf } from '@blip2/peft-lora';
import type { FitConfig } from '../config';
import type { CachedStage } from '../features';
import { stageInput, stageShape } from '../features';
import { partKeys } from '../model/parts';
import { createAdamW, disposeAdamW, updateAdamW } from '../train/optimizer';
import { cachePlan } from './disk';
import type { Calibration, DataFacts, ModelFacts, PlanFacts, StepCost } from './facts';
import type { Depths } from './small-model';
import { depthsOf, PARTS, smallModel, tokenRows, withDepths } from './small-model';

/** Up to so many parameters a model is timed at its full depth. */
const SMALL = 100e6;
/** The deeper models have so many times the layers. */
const DEEPER = 3;
/** Rows of tokens in a timed batch that are enough for the speed of a large one. */
const ROWS = 160;
/** The embeddings of a larger vocabulary would take most of the memory when everything trains. */
const TRAINED_VOCABULARY = 4096;

/** Time and processor time of all measurements so far: their ratio is the share of the processors that this process gets. */
export interface Meter {
  seconds: number;
  processor: number;
}

export type Known = Omit<PlanFacts, 'measured'> & { meter: Meter };

/** Measurements, one part after the other: every number may differ in each. */
type Measured = Record<string, number>;

/** What `measure` gives for the whole depth, from models of a few layers. */
async function wholeDepth(
  { config, dtype }: ModelFacts,
  parts: readonly (keyof Depths)[],
  vocabulary: number,
  measure: (model: Blip2) => Promise<Measured>,
): Promise<Measured> {
  const full = depthsOf(config);
  const at = async (depths: Depths) => {
    const model = smallModel(withDepths(config, depths, vocabulary), dtype);
    return measure(model).finally(() => dispose(model.params));
  };
  if (isSmall(config)) return at(full);
  const least: Depths = { vision: 1, text: 1, qformer: config.qformer_config.cross_attention_frequency };
  const base = await at(least);
  const whole = { ...base };
  for (const part of parts) {
    const deep = Math.min(full[part], DEEPER * least[part]);
    if (deep === least[part]) continue;
    const deeper = await at({ ...least, [part]: deep });
    const times = (full[part] - least[part]) / (deep - least[part]);
    for (const [name, value] of Object.entries(base))
      whole[name] += Math.max(0, deeper[name] - value) * times;
  }
  return whole;
}

/** Whether the model is timed at its full depth, which takes a second or two. */
export function isSmall({ vision_config: v, text_config: t }: ModelFacts['config']): boolean {
  const perLayer = (width: number) => 12 * width ** 2;
  const vision = v.num_hidden_layers * perLayer(v.hidden_size);
  return vision + t.num_hidden_layers * perLayer(t.hidden_size) <= SMALL;
}

/**
 * Seconds of processor time of all threads. It hardly depends on what other programs do, so differences between two depths can be
 * multiplied; `calibrate` turns it into time.
 */
function clock(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** Seconds that each measurement may take, after a call that warms up, to average what other programs do. */
const ENOUGH = 0.25;

/** Calls `work` for a quarter of a second, and at least twice, and returns the mean of its numbers. */
async function mean<T extends Measured>(meter: Meter, work: () => Promise<T>): Promise<T> {
  await work();
  const [begin, used] = [performance.now(), clock()];
  const seen: T[] = [];
  while (seen.length < 2 || performance.now() - begin < 1000 * ENOUGH) seen.push(await work());
  meter.seconds += (performance.now() - begin) / 1000;
  meter.processor += clock() - used;
  const names = Object.keys(seen[0]) as (keyof T)[];
  return Object.fromEntries(
    names.map((name) => [name, seen.reduce((total, one) => total + one[name], 0) / seen.length]),
  ) as T;
}

/** Seconds of a call, on average. */
async function meanSeconds(meter: Meter, work: () => Promise<void>): Promise<number> {
  const { seconds } = await mean(meter, async () => {
    const begin = clock();
    await work();
    return { seconds: clock() - begin };
  });
  return seconds;
}

/** Seconds per picture of an output of the frozen parts. */
export async function stageCost({ model, meter }: Known, name: CachedStage, rows: number): Promise<number> {
  const parts = name === 'image_features' ? (['vision'] as const) : (['vision', 'qformer'] as const);
  const { seconds } = await wholeDepth(model, parts, Infinity, async (small) => {
    const stage = stagesOf(small.config).find((one) => one.name === name)!;
    const { image_size: S } = small.config.vision_config;
    const pixels = tensor<Tensor4D>(normal(rngKey(0), rows * 3 * S * S), [rows, 3, S, S]);
    const seconds = await meanSeconds(meter, async () => {
      const output = tidy(() => stage.run(small, pixels));
      await output.data();
      dispose(output);
    });
    dispose(pixels);
    return { seconds };
  });
  return seconds / rows;
}

/** A training step with the preset of `config`, from the input that the cache gives. */
export async function stepCost(facts: Known, config: FitConfig): Promise<StepCost> {
  const { model, data } = facts;
  const { stage } = cachePlan({ ...facts, measured: NOTHING }, config);
  const parts = PARTS.slice(stage === 'query_embeds' ? 2 : stage === 'image_features' ? 1 : 0);
  const batch = timedBatch(model, data, config.per_device_train_batch_size);
  const vocabulary = config.preset === 'full' ? TRAINED_VOCABULARY : Infinity;
  const cost = await wholeDepth(model, parts, vocabulary, (small) =>
    timedStep(small, stage, config, batch, facts),
  );
  return { batch, ...(cost as Omit<StepCost, 'batch'>) };
}

const NOTHING: Calibration = { process: 0, picture: 0, stages: {}, steps: {} };

/** The batch of the run if the model is small, else one of enough rows. */
function timedBatch({ config }: ModelFacts, { tokens }: DataFacts, batch: number): number {
  if (isSmall(config)) return batch;
  return Math.min(batch, Math.max(1, Math.ceil(ROWS / (config.num_query_tokens + tokens.mean))));
}

async function timedStep(
  base: Blip2,
  stage: CachedStage | undefined,
  config: FitConfig,
  batch: number,
  { data: { tokens }, meter }: Known,
): Promise<Measured> {
  const { lora, patterns } = presetOf(config.preset);
  const preset = { lora, patterns: [...patterns, ...(config.also_train ?? [])] };
  const { params, trainables } = applyPreset(base.params, preset, config.lora, 0, adapterBase(base.config));
  const model = { config: base.config, params };
  const image = imageOf(model, stage, batch);
  const rows = tokenRows(model.config, batch, Math.max(2, Math.round(tokens.mean)));
  const optimizer = createAdamW(trainables, config);
  const dropout = partKeys(rngKey(0), trainables.keys());
  const checkpoint = config.gradient_checkpointing;
  const weights = [...flatten(params).values()];
  const cost = await mean(meter, async () => {
    const begin = clock();
    let [forward, tape] = [0, 0];
    const f = () => {
      const value = loss(model, image, rows, { dropout, checkpoint });
      forward = clock();
      tape = recordedBytes(weights);
      return value;
    };
    const { value, grads } = valueAndGrads(f, [...trainables.values()]);
    await value.data();
    const middle = clock();
    await update(optimizer, grads, trainables);
    dispose([value, ...grads]);
    return {
      compute: middle - begin,
      forward: forward - begin,
      update: clock() - middle,
      tape,
    };
  });
  disposeAdamW(optimizer);
  dispose([image, [...trainables.values()]]);
  return cost;
}

/** As `trainStep`: the norm of the gradients, the update, and the norm of the weights. */
async function update(
  optimizer: ReturnType<typeof createAdamW>,
  grads: Tensor[],
  trainables: Map<string, Tensor>,
): Promise<void> {
  const norm = tidy(() => globalNorm(grads));
  await norm.data();
  updateAdamW(optimizer, grads, norm, 0);
  const after = tidy(() => globalNorm([...trainables.values()]));
  await after.data();
  dispose([norm, after]);
}

function imageOf({ config }: Blip2, stage: CachedStage | undefined, batch: number): ImageInput {
  if (!stage) {
    const { image_size: S } = config.vision_config;
    return { pixel_values: tensor(normal(rngKey(0), batch * 3 * S * S), [batch, 3, S, S]) };
  }
  const shape = stageShape(config, stage);
  return stageInput(stage, shape, normal(rngKey(0), batch * shape[0] * shape[1]));
}

/** Generating texts for a batch of evaluation, by the model without adapters. */
export async function generationCost(
  { model, data, meter }: Known,
  config: FitConfig,
): Promise<Calibration['generation']> {
  const rows = Math.min(config.per_device_eval_batch_size, Math.max(1, data.final));
  const cost = await wholeDepth(model, ['text'], Infinity, async (small) => {
    const prompt = tokenRows(small.config, rows, 1);
    const texts = async (count: number) => {
      const image = imageOf(small, 'query_embeds', rows);
      await generate(small, image, prompt, { max_new_tokens: count, min_new_tokens: count });
      dispose(image);
    };
    const short = await meanSeconds(meter, () => texts(1));
    const long = await meanSeconds(meter, () => texts(1 + TIMED_TOKENS));
    const token = Math.max(0, long - short) / TIMED_TOKENS;
    return { token, prompt: Math.max(0, short - token) };
  });
  return { rows, prompt: cost.prompt, token: cost.token };
}

const TIMED_TOKENS = 6;
