/**
 * Times and memory of training steps, of the frozen parts and of generation, with real kernels at the model's widths. Layers of a kind
 * are alike, so a deep model is measured with one of each kind, and once more with two more of a kind.
 */
import {
  adapterBase,
  frozenDepth,
  generate,
  hiddenBelow,
  isRounded,
  loss,
  OUTPUT_LAYER,
  stagesOf,
} from '@blip2/blip2';
import type { Blip2, ImageInput, LossInput } from '@blip2/blip2';
import {
  dispose,
  flatten,
  globalNorm,
  normal,
  peakBytes,
  recordedBytes,
  rngKey,
  tensor,
  tidy,
  valueAndGrads,
  weightBits,
} from '@blip2/nn';
import type { Tensor, Tensor4D } from '@blip2/nn';
import { applyPreset } from '@blip2/peft-lora';
import type { Preset } from '@blip2/peft-lora';
import type { FitConfig } from '../config';
import type { CachedStage } from '../features';
import { cacheableStage, stageInput, stageShape } from '../features';
import { partKeys } from '../model/part-keys';
import { createAdamW, disposeAdamW, updateAdamW } from '../train/optimizer';
import type { Calibration, DataFacts, ModelFacts, PlanFacts, StageCost, StepCost } from './facts';
import { layoutOf, trainedBy, unitsOf } from './layers';
import type { Trained, Units } from './layers';
import { PARTS, smallModel, tokenRows } from './small-model';
import type { Part } from './small-model';

/** Up to so many parameters a model is measured at its full depth. */
const SMALL = 100e6;
/** Units of a kind that are added to find what one takes. */
const MORE = 2;
/** Rows of tokens in a timed batch that are enough for the speed of a large one. */
const ROWS = 160;
/** Layers are compared in models with so many words: those of the real vocabulary would take longer than the layers. */
const FEW_WORDS = 4096;

/** Time of all measurements so far, and what it would have been at their fastest: other programs take the difference. */
export interface Meter {
  seconds: number;
  fastest: number;
}

export type Known = Omit<PlanFacts, 'measured'> & {
  meter: Meter;
  /** what one more unit takes, by its kind and the measurement: presets have kinds in common */
  units: Map<string, Measured>;
};

/** Measurements, one part after the other: every number may differ in each. */
type Measured = Record<string, number>;

/** How to measure a model of a few layers, whose weights are made up. */
interface Measurement {
  /** names it among those of other presets */
  name: string;
  /** the parts whose depth counts */
  parts: readonly Part[];
  /** numbers that grow with the depth; others are those of the model of the fewest layers */
  grow: readonly string[];
  trained?: Trained;
  measure(model: Blip2, preset?: Preset): Promise<Measured>;
}

/** What the measurement gives for the model's whole depth. */
async function wholeDepth(known: Known, measurement: Measurement): Promise<Measured> {
  const { config, dtype } = known.model;
  const { parts, trained, name, grow } = measurement;
  const units = unitsOf(config, trained);
  const at = async (chosen: Record<Part, number[]>, vocabulary?: number) => {
    const { config: small, preset } = layoutOf(config, chosen, trained, vocabulary);
    const trains = preset?.patterns.map((pattern) => new RegExp(pattern)) ?? [];
    const int8 = (weight: string, shape: number[]) =>
      weightBits(known.machine.precision) !== undefined &&
      (weight === OUTPUT_LAYER || isRounded(weight, { shape })) &&
      !trains.some((pattern) => pattern.test(weight));
    const model = smallModel(small, dtype, int8);
    return measurement.measure(model, preset).finally(() => dispose(model));
  };
  if (isSmall(config)) return at(chosenUnits(units, ({ length }) => length));
  const few = chosenUnits(units, () => 1);
  const large = trained?.names.some((one) => /embed_tokens|shared|lm_head/.test(one)); // would take most of the memory
  const whole = { ...(await at(few, large ? FEW_WORDS : undefined)) };
  let least: Measured | undefined;
  for (const part of parts)
    for (const [kind, alike] of byKind(units[part])) {
      if (alike.length === 1) continue;
      const key = `${name}\n${part}\n${kind}`;
      let one = known.units.get(key);
      if (!one) {
        const more = Math.min(MORE, alike.length - 1);
        const deep = [...few[part], ...new Array<number>(more).fill(alike[0])].sort((a, b) => a - b);
        least ??= await at(few, FEW_WORDS);
        const deeper = await at({ ...few, [part]: deep }, FEW_WORDS);
        one = Object.fromEntries(grow.map((field) => [field, (deeper[field] - least![field]) / more]));
        known.units.set(key, one);
      }
      for (const field of grow) whole[field] += Math.max(0, one[field]) * (alike.length - 1);
    }
  return whole;
}

/** So many units of each kind, in the model's order. */
function chosenUnits(units: Units, count: (alike: number[]) => number): Record<Part, number[]> {
  const of = (part: Part) =>
    [...byKind(units[part]).values()].flatMap((alike) => alike.slice(0, count(alike))).sort((a, b) => a - b);
  return Object.fromEntries(PARTS.map((part) => [part, of(part)])) as Record<Part, number[]>;
}

function byKind(units: Units[Part]): Map<string, number[]> {
  const kinds = new Map<string, number[]>();
  for (const { kind, index } of units) kinds.set(kind, [...(kinds.get(kind) ?? []), index]);
  return kinds;
}

/** Whether the model is measured at its full depth, which takes a second or two. */
export function isSmall({ vision_config: v, text_config: t }: ModelFacts['config']): boolean {
  const perLayer = (width: number) => 12 * width ** 2;
  const vision = v.num_hidden_layers * perLayer(v.hidden_size);
  return vision + t.num_hidden_layers * perLayer(t.hidden_size) <= SMALL;
}

/** Seconds that each measurement takes at least, after calls that warm up. */
const ENOUGH = 0.25;
/** The second call makes the packed copies of weights, which is a small part of a longer one. */
const LONG = 0.1;
const seconds = () => performance.now() / 1000;

/**
 * Calls `work` at least twice and returns the least of each of its numbers, which other programs disturb least. `bytes` are the
 * most that its tensors took.
 */
async function least<T extends Measured>(
  meter: Meter,
  work: () => Promise<T>,
): Promise<T & { bytes: number }> {
  const first = seconds();
  await work();
  if (seconds() - first < LONG) await work();
  const begin = seconds();
  const seen: T[] = [];
  const times: number[] = [];
  const bytes = await peakBytes(async () => {
    while (seen.length < 2 || seconds() - begin < ENOUGH) {
      const from = seconds();
      seen.push(await work());
      times.push(seconds() - from);
    }
  });
  meter.seconds += seconds() - begin;
  meter.fastest += times.length * Math.min(...times);
  const names = Object.keys(seen[0]);
  const values = names.map((name) => [name, Math.min(...seen.map((one) => one[name]))]);
  return { ...(Object.fromEntries(values) as T), bytes };
}

/** Seconds of a call, and the bytes that its tensors take. */
function cost(meter: Meter, work: () => Promise<void>): Promise<{ seconds: number; bytes: number }> {
  return least(meter, async () => {
    const begin = seconds();
    await work();
    return { seconds: seconds() - begin };
  });
}

/** An output of the frozen parts, per picture. */
export async function stageCost(known: Known, name: CachedStage, rows: number): Promise<StageCost> {
  const parts = name === 'image_features' ? (['vision'] as const) : (['vision', 'qformer'] as const);
  const measure = async (small: Blip2) => {
    const stage = stagesOf(small.config).find((one) => one.name === name)!;
    const { image_size: S } = small.config.vision_config;
    const pixels = tensor<Tensor4D>(normal(rngKey(0), rows * 3 * S * S), [rows, 3, S, S]);
    const found = await cost(known.meter, async () => {
      const output = tidy(() => stage.run(small, pixels));
      await output.data();
      dispose(output);
    });
    dispose(pixels);
    return found;
  };
  const found = await wholeDepth(known, { name: 'stage', parts, grow: ['seconds'], measure });
  return { seconds: found.seconds / rows, bytes: found.bytes / rows };
}

/** A training step with the preset of `config`, from the input that the cache gives. */
export async function stepCost(known: Known, config: FitConfig): Promise<StepCost> {
  const { model, data } = known;
  const trained = trainedBy(model.config, config);
  const stage = cacheableStage(model.config, [...trained.names, ...trained.modules]);
  const parts = PARTS.slice(stage === 'query_embeds' ? 2 : stage === 'image_features' ? 1 : 0);
  const batch = timedBatch(model, data, config.per_device_train_batch_size);
  const grow = ['compute', 'forward', 'tape', 'below'];
  const measure = (small: Blip2, preset?: Preset) =>
    timedStep(small, preset!, { stage, config, batch, known });
  const found = await wholeDepth(known, { name: `step of ${batch}`, parts, grow, trained, measure });
  const { compute, below, forward, update, tape, work } = found;
  return { batch, below, compute, forward, tape, work, update: update * trained.trainable };
}

/** The batch of the run if the model is small, else one of enough rows. */
function timedBatch({ config }: ModelFacts, { tokens, pictures_per_row }: DataFacts, batch: number): number {
  if (isSmall(config)) return batch;
  const positions = config.num_query_tokens * pictures_per_row + tokens.mean;
  return Math.min(batch, Math.max(1, Math.ceil(ROWS / positions)));
}

interface TimedStep {
  stage: CachedStage | undefined;
  config: FitConfig;
  batch: number;
  known: Known;
}

/** Seconds of loss and gradients, and of the update per number; bytes of the tape, and of what is there beside tape or gradients. */
async function timedStep(base: Blip2, preset: Preset, { stage, config, batch, known }: TimedStep) {
  const { params, trainables } = applyPreset(base.params, preset, {}, 0, adapterBase(base.config));
  const model = { config: base.config, params };
  const { tokens, pictures_per_row } = known.data;
  const pictures = Math.max(1, Math.round(batch * pictures_per_row));
  const image = imageOf(model, stage, pictures);
  const rows = tokenRows(model.config, batch, Math.max(2, Math.round(tokens.mean)), pictures);
  const optimizer = createAdamW(trainables, config);
  const dropout = partKeys(rngKey(0), trainables.keys());
  const checkpoint = config.gradient_checkpointing;
  const weights = [...flatten(params).values()];
  const numbers = [...trainables.values()].reduce((sum, { size }) => sum + size, 0);
  const frozen_layers = frozenDepth(model.config, trainables.keys());
  const states = () => tidy(() => ({ hidden: hiddenBelow(model, image, rows, frozen_layers) }));
  const input: LossInput = frozen_layers > 0 ? states() : image;
  const found = await least(known.meter, async () => {
    const first = seconds();
    if (frozen_layers > 0) {
      const again = states();
      await again.hidden.data();
      dispose(again);
    }
    const begin = seconds();
    let [forward, tape] = [0, 0];
    const f = () => {
      const value = loss(model, input, rows, { dropout, checkpoint, frozen_layers });
      forward = seconds();
      tape = recordedBytes(weights);
      return value;
    };
    const { value, grads } = valueAndGrads(f, [...trainables.values()]);
    await value.data();
    const middle = seconds();
    await update(optimizer, grads, trainables);
    dispose([value, ...grads]);
    return {
      below: begin - first,
      compute: middle - begin,
      forward: forward - begin,
      update: (seconds() - middle) / numbers,
      tape,
    };
  });
  disposeAdamW(optimizer);
  dispose([image, input, [...trainables.values()]]);
  const { bytes, ...times } = found;
  return { ...times, work: Math.max(0, bytes - Math.max(times.tape, 4 * numbers)) };
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
export async function generationCost(known: Known, config: FitConfig): Promise<Calibration['generation']> {
  const { data, meter } = known;
  const rows = Math.min(config.per_device_eval_batch_size, Math.max(1, data.final, data.validation));
  const stage = stagesOf(known.model.config).at(-1)!.name;
  const measure = async (small: Blip2) => {
    const prompt = tokenRows(small.config, rows, 1);
    const texts = async (count: number) => {
      const image = imageOf(small, stage, rows);
      await generate(small, image, prompt, { max_new_tokens: count, min_new_tokens: count });
      dispose(image);
    };
    const short = await cost(meter, () => texts(1));
    const long = await cost(meter, () => texts(1 + TIMED_TOKENS));
    const token = Math.max(0, long.seconds - short.seconds) / TIMED_TOKENS;
    return { token, prompt: Math.max(0, short.seconds - token) };
  };
  const found = await wholeDepth(known, {
    name: 'generation',
    parts: PARTS.slice(stage === 'query_embeds' ? 2 : 1),
    grow: ['prompt', 'token'],
    measure,
  });
  return { rows, prompt: found.prompt, token: found.token };
}

const TIMED_TOKENS = 6;
