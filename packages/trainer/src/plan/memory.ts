/** Memory of a run, from the same rules by which the program holds weights, gradients and features. */
import { bitsOf, blip2Weights, isRounded, outputLayerName, stagesOf } from '@blip2/blip2';
import { weightBits } from '@blip2/nn';
import type { FitConfig } from '../config';
import { cacheableStage } from '../features';
import { cachePlan } from './disk';
import type { PlanFacts } from './facts';
import { runName, trainedBy } from './layers';
import type { Trained } from './layers';
import { outputLayerBytes, roundedBytes, STORED_FROM } from './rounded-weights';

const FLOAT = 4;
const BYTES = { F32: 4, F16: 2, BF16: 2 } as const;
/** Matmuls keep packed copies of frozen matrices from this size on (`PackedWeights` of backend-native). */
const PACKED_FROM = 4096;

/** Bytes; their sum is the peak of the resident set. */
export interface MemoryParts {
  /** Node, the addon, the tokenizer and the data's texts */
  process: number;
  /** frozen weights read in place from their files: the system may drop these pages, and then reads them again */
  mapped: number;
  /** frozen weights in memory, with packed copies */
  weights: number;
  trainables: number;
  /** the optimizer's moments */
  moments: number;
  /** what the backward pass reads, the frozen parts compute or generation holds, whichever is most */
  activations: number;
  /** what gradients take above the activations, which are freed meanwhile */
  gradients: number;
  /** cached features in memory */
  features: number;
  /** buffers that the backend keeps for reuse */
  pool: number;
  /** the largest tensor of a whole model in float32, while that is saved */
  saving: number;
  /** pictures: of the batch that is read ahead, or of the pixel controls in the final table */
  pictures: number;
}

/** These lie in the memory of the machine, beside a GPU. */
const NOT_ON_GPU = { process: 0, features: 0, saving: 0, pictures: 0 };

/** @param features bytes of cached features held in memory */
export function memoryOf(facts: PlanFacts, config: FitConfig, features: number): MemoryParts {
  const trained = trainedBy(facts.model.config, config);
  const { trainable } = trained;
  const isApart = weightsApart(facts, config);
  const frozen = frozenBytes(facts, trained, (name) => !isApart(name));
  const apart = sum(frozenBytes(facts, trained, isApart));
  const { activations, gradients } = workingBytes(facts, config, trained, { apart, others: sum(frozen) });
  const work = { trainables: FLOAT * trainable, moments: 2 * FLOAT * trainable, activations, gradients };
  const parts = {
    process: facts.measured.process,
    mapped: frozen.mapped,
    weights: frozen.weights + frozen.packed,
    ...work,
    features,
    pool: poolBytes(facts, frozen.packed + sum(work)),
    saving: savingBytes(facts.model, trained),
    pictures: pictureBytes(facts, config),
  };
  return facts.machine.backend === 'webgpu' ? { ...parts, ...NOT_ON_GPU } : parts;
}

export const sum = (parts: object): number =>
  Object.values(parts).reduce((total: number, part: number) => total + part, 0);

/** Weights that a GPU has only while features are computed, because training reads these from the cache (`releaseStage`). */
function weightsApart(facts: PlanFacts, config: FitConfig): (name: string) => boolean {
  const { stage, kept } = cachePlan(facts, config);
  if (facts.machine.backend !== 'webgpu' || !stage || kept === 'none') return () => false;
  const { parts } = stagesOf(facts.model.config).find(({ name }) => name === stage)!;
  return (name) => parts.includes(name.split('.')[0]);
}

/** Weights in their files and in memory, as `loadModel` and the backend hold them. */
function frozenBytes(
  { model, machine }: PlanFacts,
  { names, modules }: Trained,
  counts: (name: string) => boolean,
) {
  let [mapped, weights, packed] = [0, 0, 0];
  const trained = new Set(names);
  const reached = PARTS_IN_ORDER.findIndex((part) =>
    [...names, ...modules].some((name) => name.startsWith(part)),
  );
  const copies = (name: string) =>
    PARTS_IN_ORDER.findIndex((part) => name.startsWith(part)) >= reached ? 2 : 1;
  const text_bits = weightBits(machine.precision);
  const rounded = machine.backend === 'native' && machine.precision !== 'float32' && model.dtype !== 'BF16';
  for (const [name, shape] of blip2Weights(model.config)) {
    const numbers = shape.reduce((a, b) => a * b, 1);
    if (!counts(name)) continue;
    if (text_bits && isRounded(name, { shape }) && !trained.has(name)) {
      mapped += roundedBytes(shape as [number, number], bitsOf(name, text_bits));
      continue;
    }
    const stored = machine.stores && shape.length === 2 && numbers >= STORED_FROM;
    const quantised = model.quantised?.get(name);
    if (stored && quantised !== undefined) {
      mapped += quantised;
      continue;
    }
    if (stored && rounded) weights += trained.has(name) ? 0 : 2 * numbers;
    else if (stored)
      mapped += BYTES[model.dtype] * numbers; // trained ones are read from there, too
    else if (!trained.has(name)) {
      weights += FLOAT * numbers;
      packed += copies(name) * packedBytes(machine, shape, numbers);
    }
  }
  const output = outputLayerName(model.config);
  if (text_bits && machine.stores && counts(output) && !trained.has(output))
    mapped += outputLayerBytes(model.config);
  return machine.backend === 'webgpu'
    ? { mapped: 0, weights: weights + mapped, packed: 0 }
    : { mapped, weights, packed };
}

/** In the order of the forward pass: gradients reach the first part that trains. */
const PARTS_IN_ORDER = ['vision_model', 'query_tokens', 'qformer', 'language_projection', 'language_model'];

/** A copy for `x · W`; where a gradient passes there is another, for `dy · Wᵀ`. */
function packedBytes({ stores, precision }: PlanFacts['machine'], shape: number[], numbers: number): number {
  if (!stores || shape.length !== 2 || numbers < PACKED_FROM || precision === 'float32') return 0;
  return 2 * numbers;
}

/** The most of the phases of a run above the other weights, and what gradients add to it. Pixel controls need all weights at the end. */
function workingBytes(
  facts: PlanFacts,
  config: FitConfig,
  trained: Trained,
  weights: { apart: number; others: number },
) {
  const cost = facts.measured.steps[runName(facts.model.config, config)];
  const { mean, most } = facts.data.tokens;
  const queries = facts.model.config.num_query_tokens * facts.data.pictures_per_row;
  const larger = cost
    ? (config.per_device_train_batch_size / cost.batch) * ((queries + most) / (queries + mean))
    : 0;
  const [tape, work] = cost ? [cost.tape * larger, cost.work * larger] : [0, 0];
  const grads = FLOAT * trained.trainable;
  const accumulates = config.gradient_accumulation_steps > 1;
  // Sums of two micro-batches are made while both are there.
  const step = work + (accumulates ? Math.max(tape + grads, 3 * grads) : Math.max(tape, grads));
  const stage = stageBytes(facts, config, trained);
  const { apart } = weights;
  const others = [
    apart > 0 ? apart + stage - weights.others : stage,
    generationBytes(facts, config) + (config.controls && facts.data.final > 0 ? apart : 0),
  ];
  const activations = Math.max(tape + work, ...others);
  return { activations, gradients: Math.max(0, step - activations) };
}

/** Computing what the frozen parts make of a batch of pictures. */
function stageBytes({ model, measured }: PlanFacts, config: FitConfig, { names, modules }: Trained): number {
  const stage = cacheableStage(model.config, [...names, ...modules]);
  const bytes = (stage && measured.stages[stage]?.bytes) ?? 0;
  return bytes * Math.max(config.per_device_eval_batch_size, config.per_device_train_batch_size);
}

/**
 * Two batches, one of which is read ahead; and for the pixel controls at most 3,000 training pictures and all held out, 32 × 32, and the
 * copies that are compared.
 */
function pictureBytes({ data, model }: PlanFacts, config: FitConfig): number {
  const { controls, final_evaluation, per_device_eval_batch_size: batch } = config;
  const side = model.config.vision_config.image_size;
  const ahead = 2 * FLOAT * 3 * side ** 2 * batch;
  if (!controls || final_evaluation === 'none' || data.final === 0) return ahead;
  return Math.max(ahead, 2 * FLOAT * 3 * 32 * 32 * (Math.min(data.rows, 3000) + data.final));
}

function savingBytes({ config }: PlanFacts['model'], { lora }: Trained): number {
  if (lora > 0) return 0;
  return FLOAT * Math.max(...blip2Weights(config).map(([, shape]) => shape.reduce((a, b) => a * b, 1)));
}

/** Keys and values of every layer, and the scores of the next token. */
function generationBytes({ model, data }: PlanFacts, config: FitConfig): number {
  if (data.final === 0 && !config.predict_with_generate) return 0;
  const { num_hidden_layers, hidden_size, vocab_size } = model.config.text_config;
  const rows = config.per_device_eval_batch_size * config.generation.num_beams;
  const positions = model.config.num_query_tokens + data.generated + 1;
  return FLOAT * rows * (2 * num_hidden_layers * positions * hidden_size + 2 * vocab_size);
}

/**
 * Freed buffers that are kept (`BufferPool` of a backend): native's up to a quarter of its peak and 64 MiB, since phases differ in their
 * sizes; webgpu's up to a sixteenth of the most in use, and it rounds sizes up by a sixteenth on average; its constants take up to 64 MiB.
 */
function poolBytes({ machine }: PlanFacts, most: number): number {
  if (machine.backend === 'webgpu') return most / 8 + (64 << 20);
  return machine.backend === 'native' ? most / 4 + (64 << 20) : 0;
}
