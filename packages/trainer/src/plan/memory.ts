/** Memory of a run, from the same rules by which the program holds weights, gradients and features. */
import { adapterBase, blip2Weights, isRounded } from '@blip2/blip2';
import { countPreset, presetOf } from '@blip2/peft-lora';
import type { PresetCount } from '@blip2/peft-lora';
import type { FitConfig } from '../config';
import type { PlanFacts } from './facts';

const FLOAT = 4;
const BYTES = { F32: 4, F16: 2, BF16: 2 } as const;
/** A smaller matrix is an ordinary tensor (`smallestStored` of backend-native). */
const STORED_FROM = 1 << 20;
/** Matmuls keep packed copies of frozen matrices from this size on (`PackedWeights` of backend-native). */
const PACKED_FROM = 4096;
const GARBAGE = 64 << 20;

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
  /** what the backward pass reads, or what generation holds, if that is more */
  activations: number;
  /** what gradients take above the activations, which are freed meanwhile */
  gradients: number;
  /** cached features in memory */
  features: number;
  /** buffers that the backend keeps for reuse */
  pool: number;
  /** pictures of the pixel controls in the final table */
  controls: number;
  /** decoders' buffers, and what the garbage collector has not freed yet: measured with the demo */
  garbage: number;
}

/** Tensors and numbers that a run trains. */
export function trainedBy(
  { config }: PlanFacts['model'],
  { preset: name, lora, also_train = [] }: FitConfig,
): PresetCount {
  const preset = presetOf(name);
  const all = { ...preset, patterns: [...preset.patterns, ...also_train] };
  return countPreset(blip2Weights(config), all, lora, adapterBase(config));
}

/** @param features bytes of cached features held in memory */
export function memoryOf(facts: PlanFacts, config: FitConfig, features: number): MemoryParts {
  const { trainable, names } = trainedBy(facts.model, config);
  const frozen = frozenBytes(facts, new Set(names));
  const { tape, gradients } = workingBytes(facts, config, trainable);
  const activations = Math.max(tape, generationBytes(facts, config));
  const work = { trainables: FLOAT * trainable, moments: 2 * FLOAT * trainable, activations, gradients };
  return {
    process: facts.measured.process,
    ...frozen,
    ...work,
    features,
    pool: poolBytes(facts, activations),
    controls: controlBytes(facts, config),
    garbage: GARBAGE,
  };
}

export const sum = (parts: object): number =>
  Object.values(parts).reduce((total: number, part: number) => total + part, 0);

/** Weights in their files and in memory, as `loadModel` and the backend hold them. */
function frozenBytes({ model, machine }: PlanFacts, trained: Set<string>) {
  let [mapped, weights] = [0, 0];
  const rounded = machine.precision !== 'float32' && model.dtype !== 'BF16';
  for (const [name, shape] of blip2Weights(model.config)) {
    const numbers = shape.reduce((a, b) => a * b, 1);
    if (machine.precision === 'int8' && isRounded(name, { shape }) && !trained.has(name)) {
      mapped += int8Bytes(shape as [number, number]);
      continue;
    }
    const stored = machine.stores && shape.length === 2 && numbers >= STORED_FROM;
    if (stored && rounded) weights += trained.has(name) ? 0 : 2 * numbers;
    else if (stored)
      mapped += BYTES[model.dtype] * numbers; // trained ones are read from there, too
    else if (!trained.has(name)) weights += FLOAT * numbers + packedBytes(machine, shape, numbers);
  }
  return { mapped, weights };
}

/** In whole blocks of 32 by 32, with a scale for each row and a factor for each column. */
const int8Bytes = ([rows, columns]: [number, number]): number =>
  Math.ceil(rows / 32) * Math.ceil(columns / 32) * 1024 + FLOAT * (rows + columns);

/** Copies for `x · W` and, where a gradient passes, `dy · Wᵀ`. */
function packedBytes({ stores, precision }: PlanFacts['machine'], shape: number[], numbers: number): number {
  if (!stores || shape.length !== 2 || numbers < PACKED_FROM || precision === 'float32') return 0;
  return 2 * 2 * numbers;
}

/** The tape of a micro-batch, and what gradients add to it at their highest. */
function workingBytes({ model, data, measured }: PlanFacts, config: FitConfig, trainable: number) {
  const cost = measured.steps[config.preset];
  const { mean, longest } = data.tokens;
  const longer = (model.config.num_query_tokens + longest) / (model.config.num_query_tokens + mean);
  const tape = cost ? (cost.tape / cost.batch) * config.per_device_train_batch_size * longer : 0;
  const grads = FLOAT * trainable;
  const accumulates = config.gradient_accumulation_steps > 1;
  // Sums of two micro-batches are made while both are there.
  const most = accumulates ? Math.max(tape + grads, 3 * grads) : Math.max(tape, grads);
  return { tape, gradients: most - tape };
}

/** Pixels of at most 3,000 training pictures and of all held out, 32 × 32, and the copies that are compared. */
function controlBytes({ data }: PlanFacts, { controls, final_evaluation }: FitConfig): number {
  if (!controls || final_evaluation === 'none' || data.final === 0) return 0;
  return 2 * FLOAT * 3 * 32 * 32 * (Math.min(data.rows, 3000) + data.final);
}

/** Keys and values of every layer, and the scores of the next token. */
function generationBytes({ model, data }: PlanFacts, config: FitConfig): number {
  if (data.final === 0 && !config.predict_with_generate) return 0;
  const { num_hidden_layers, hidden_size, vocab_size } = model.config.text_config;
  const rows = config.per_device_eval_batch_size * config.generation.num_beams;
  const positions = model.config.num_query_tokens + data.generated + 1;
  return FLOAT * rows * (2 * num_hidden_layers * positions * hidden_size + 2 * vocab_size);
}

/** The native backend keeps freed buffers up to a quarter of its peak and 64 MiB (`BufferPool`); phases differ in their sizes. */
function poolBytes({ machine }: PlanFacts, activations: number): number {
  return machine.backend === 'native' ? Math.min(activations / 4 + (64 << 20), activations) : 0;
}
