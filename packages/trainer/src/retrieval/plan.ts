/** The plan of a run for retrieval: from the sizes of its tensors and, for a small model, from timed steps at its full depth. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Processor } from '@blip2/data-captions';
import {
  dispose,
  globalNorm,
  nest,
  normal,
  peakBytes,
  recordedBytes,
  rngKey,
  tensor,
  tidy,
  valueAndGrads,
} from '@blip2/nn';
import type { Tensor, Tensor3D, Tensor4D } from '@blip2/nn';
import { applyPreset, countPreset } from '@blip2/peft-lora';
import type { PresetCount, PresetName } from '@blip2/peft-lora';
import { firstStageLoss, firstStageWeights, imageStage, togetherOf } from '@blip2/retrieval';
import type { RetrievalConfig, RetrievalModel } from '@blip2/retrieval';
import { loadRetrievalConfig } from '@blip2/retrieval/node';
import { openWeights, resolveModel } from '@blip2/weights/node';
import type { FitConfig } from '../config';
import { fileBytes } from '../features';
import { trainOptions } from '../model/parts';
import type { CachePlan, DataFacts, MachineFacts, Plan, PresetPlan } from '../plan';
import { fitsIn, gigabytes } from '../plan/plan';
import { placeOf } from '../plan/disk';
import { sum } from '../plan/memory';
import { processBytes } from '../plan/measure';
import { createAdamW, disposeAdamW, updateAdamW } from '../train/optimizer';
import type { TrainedRetrieval } from './kind';
import { RETRIEVAL_BASE, RETRIEVAL_PRESET, retrievalPreset } from './presets';

const FLOAT = 4;
/** Up to so many parameters a model is timed: it takes seconds, with made-up weights. */
const SMALL = 100e6;

/** What a row of the plan trains, and when one would choose it. */
const PURPOSE: Readonly<Partial<Record<PresetName, { trains: string; when: string }>>> = {
  lora: {
    trains: 'LoRA in the Q-Former',
    when: 'a checkpoint of the first stage and few pairs; the smallest result',
  },
  qformer: {
    trains: 'the Q-Former',
    when: 'a checkpoint of the first stage whose words and projections stay',
  },
  'qformer-projection': {
    trains: 'all but the vision tower',
    when: "BLIP-2's first stage; the usual choice",
  },
  full: { trains: 'all weights', when: 'pictures unlike those that the tower knows' },
};

export interface PlannedData {
  data: DataFacts;
  machine: MachineFacts;
  processor?: Processor;
}

/** @throws ConfigError, AdapterError as `fit`, for presets that a model for retrieval cannot have */
export async function retrievalPlans(
  configs: readonly FitConfig[],
  { data, machine }: PlannedData,
): Promise<Pick<Plan, 'presets'> & { bytes: number; dtype: 'F32' | 'F16' | 'BF16' }> {
  const dir = resolveModel(configs[0].model);
  const sizes = await loadRetrievalConfig(dir);
  const files = await weightFiles(dir);
  const presets: PresetPlan[] = [];
  for (const config of configs) presets.push(await planFor(config, { sizes, data, machine, files }));
  const best = presets.find(({ preset, fits }) => preset === RETRIEVAL_PRESET && fits === 'yes');
  if (best && presets.length > 1) best.recommended = "it is what BLIP-2's first stage trains";
  return { presets, ...files };
}

async function weightFiles(dir: string): Promise<{ bytes: number; dtype: 'F32' | 'F16' | 'BF16' }> {
  const names = (await readdir(dir)).filter((name) => name.endsWith('.safetensors'));
  const bytes = await Promise.all(names.map(async (name) => (await stat(join(dir, name))).size));
  const reader = await openWeights(dir);
  try {
    const found = reader.entries.get('vision_model.post_layernorm.weight')?.dtype;
    return { bytes: sum(bytes), dtype: found === 'F16' || found === 'BF16' ? found : 'F32' };
  } finally {
    await reader.close();
  }
}

interface Facts extends PlannedData {
  sizes: RetrievalConfig;
  files: { bytes: number };
}

async function planFor(config: FitConfig, facts: Facts): Promise<PresetPlan> {
  const { sizes, data, machine, files } = facts;
  const preset = retrievalPreset(config);
  const trained = countPreset(firstStageWeights(sizes), preset, config.lora, RETRIEVAL_BASE);
  const cache = cacheOf(config, trained, facts);
  const cost = trained.all <= SMALL ? await timed(config, facts) : undefined;
  const { trainable } = trained;
  const parts = {
    process: processBytes(),
    mapped: Math.round((files.bytes * (trained.all - trainable)) / trained.all),
    weights: 0,
    trainables: FLOAT * trainable,
    moments: 2 * FLOAT * trainable,
    activations: cost?.bytes ?? 0,
    gradients: Math.max(0, FLOAT * trainable - (cost?.bytes ?? 0)),
    features: cache.kept.includes('memory') ? cache.bytes : 0,
    pool: 0,
    saving: 0,
    pictures: 2 * FLOAT * 3 * sizes.vision_config.image_size ** 2 * config.per_device_eval_batch_size,
  };
  const memory = { ...parts, peak: sum(parts) };
  const disk = {
    model: files.bytes,
    features: cache.kept.includes('disk') ? cache.bytes : 0,
    rounded: 0,
    checkpoints: (config.save_total_limit + 2) * 3 * FLOAT * trainable,
    result: FLOAT * (trained.lora > 0 ? trained.lora : trained.all),
  };
  const fits = fitsIn(machine.memory, memory);
  return {
    preset: config.preset,
    name: config.preset,
    ...PURPOSE[config.preset]!,
    parameters: trainable,
    memory,
    disk: { ...disk, total: sum(disk) },
    cache,
    time: cost && timeOf(config, cost, { data, cache }),
    fits,
    notes: [
      ...(fits === 'yes'
        ? []
        : [`needs at least ${gigabytes(memory.peak)}; the machine has ${gigabytes(machine.memory)}`]),
      ...(cost
        ? []
        : ['a model of this size is not timed, and its memory lacks what the backward pass reads']),
    ],
  };
}

function cacheOf(
  config: FitConfig,
  { names, modules }: PresetCount,
  { sizes, data, machine }: Facts,
): CachePlan {
  if ([...names, ...modules].some((name) => name.startsWith('vision_model.')))
    return { bytes: 0, kept: 'none', why: 'the vision tower trains' };
  const { name: stage, shape } = imageStage(sizes);
  const bytes = data.pictures * fileBytes(shape);
  if (!config.cache_features || config.image_augmentation) return { stage, bytes, kept: 'none', why: 'off' };
  const kept = placeOf({ machine }, config, bytes);
  return kept === 'none' ? { stage, bytes, kept, why: 'above cache_limit_mb' } : { stage, bytes, kept };
}

/** Seconds of a step, of its loss alone, and of the tower for a picture; bytes of tensors in a step. */
interface Cost {
  step: number;
  loss: number;
  picture: number;
  bytes: number;
}

/** Of the whole model with made-up weights: the first call warms up. */
async function timed(config: FitConfig, { sizes, data }: Facts): Promise<Cost> {
  const table = firstStageWeights(sizes);
  const base = nest(
    table.map(([name, shape], i): [string, Tensor] => {
      const n = shape.reduce((a, b) => a * b, 1);
      const values = name.endsWith('temperature') ? [0.07] : normal(rngKey(i), n).map((x) => 0.02 * x);
      return [name, tensor(values, shape)];
    }),
  ) as TrainedRetrieval['params'];
  const { params, trainables } = applyPreset(base, retrievalPreset(config), config.lora, 0, RETRIEVAL_BASE);
  const model: RetrievalModel = { config: sizes, params };
  const B = Math.max(2, Math.min(config.per_device_train_batch_size, data.rows));
  const optimizer = createAdamW(trainables, config);
  const { run, image_size: S, shape } = imageStage(sizes);
  const tokens = tensor<Tensor3D>(normal(rngKey(0), B * shape[0] * shape[1]), [B, ...shape]);
  const pixels = tensor<Tensor4D>(normal(rngKey(1), 3 * S * S), [1, 3, S, S]);
  const T = Math.max(3, Math.min(sizes.max_position_embeddings, Math.round(data.tokens.mean)));
  const rows = {
    input_ids: new Int32Array(B * T).map((_, i) => 1 + (i % (sizes.vocab_size - 1))),
    attention_mask: new Int32Array(B * T).fill(1),
    shape: [B, T] as [number, number],
  };
  const other = Int32Array.from({ length: B }, (_, b) => (b + 1) % B);
  const negatives = { imageOfText: other, textOfImage: other };
  const pairs = { tokens, rows, together: togetherOf(rows.input_ids.slice(0, B), rows), negatives, start: 1 };
  let tape = 0;
  const once = async () => {
    const begin = performance.now();
    const picture = tidy(() => run(model, pixels));
    await picture.data();
    dispose(picture);
    const middle = performance.now();
    let forward = middle;
    const { value, grads } = valueAndGrads(() => {
      const loss = firstStageLoss(model, params.first_stage, pairs);
      forward = performance.now();
      tape = recordedBytes([...trainables.values()]);
      return loss;
    }, [...trainables.values()]);
    const norm = tidy(() => globalNorm(grads));
    await norm.data();
    updateAdamW(optimizer, grads, norm, 0);
    dispose([value, norm, ...grads]);
    const end = performance.now();
    return { picture: middle - begin, loss: forward - middle, step: end - middle };
  };
  try {
    await once();
    let best = await once();
    const bytes = await peakBytes(async () => void (best = least(best, await once())));
    const seconds = Object.fromEntries(Object.entries(best).map(([name, ms]) => [name, ms / 1000]));
    return { ...(seconds as Omit<Cost, 'bytes'>), bytes: Math.max(bytes, tape) };
  } finally {
    disposeAdamW(optimizer);
    dispose([params, tokens, pixels]);
  }
}

const least = <T extends Record<string, number>>(a: T, b: T): T =>
  Object.fromEntries(Object.entries(a).map(([name, value]) => [name, Math.min(value, b[name])])) as T;

function timeOf(
  config: FitConfig,
  { step, loss, picture }: Cost,
  { data, cache }: { data: DataFacts; cache: CachePlan },
): PresetPlan['time'] {
  const { totalSteps, perEpoch, eval_steps } = trainOptions(config, data.rows, 1);
  const pictures = cache.kept === 'none' ? config.per_device_train_batch_size * picture : 0;
  const each = config.gradient_accumulation_steps * (step + pictures);
  const perPair = loss / config.per_device_train_batch_size;
  const cold = {
    loading: 0,
    rounding: 0,
    features: cache.kept === 'none' ? 0 : data.pictures * picture,
    training: totalSteps * each,
    evaluation: Math.ceil(totalSteps / eval_steps) * data.losses * perPair,
    saving: 0,
    final: data.final * perPair * (config.controls ? 2 : 1),
  };
  const whole = { ...cold, epoch: perEpoch * each, total: sum(cold) };
  return { cold: whole, cached: { ...whole, features: 0, total: whole.total - whole.features } };
}
