/** Our training steps on the batches of a work file. */
import { adapterBase, frozenDepth, hiddenBelow, imageFeatures, loss, queryEmbeds } from '@blip2/blip2';
import type { Blip2, LossInput } from '@blip2/blip2';
import { dispose, fold, tensor, tidy } from '@blip2/nn';
import type { Key, Tensor, Tensor2D, Tensor3D, Variable } from '@blip2/nn';
import { applyAdapter, applyPreset, trainable } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { cacheableStage, createAdamW, releaseStage, train } from '@blip2/trainer';
import type { TrainParts } from '@blip2/trainer';
import { getBackend } from '@tensorflow/tfjs-core';
import { watchKernels } from './kernels';
import type { KernelTime } from './kernels';
import { open, peakMemory, Pictures, sinceStart } from './side';
import type { SideOptions, SideReport } from './side';
import { readWork } from './work';
import type { WorkBatch } from './work';

export const STEP_PRESETS = ['lora', 'qformer', 'lora+qformer'] as const;
export type StepPreset = (typeof STEP_PRESETS)[number];
/** `ready`: the outputs of the frozen parts are computed before the first step, as in the trainer's cache. */
export type Features = 'none' | 'ready';

export interface StepOptions extends SideOptions {
  preset: StepPreset;
  steps: number;
  lr: number;
  features: Features;
  /** A PEFT adapter to start from; a fresh one by default. */
  adapter?: string;
  noDropout: boolean;
  /** LoRA in so many upper layers of the language model alone; default: in all. */
  upper?: number;
  /** Time every kernel. */
  kernels: boolean;
}

export interface StepReport extends SideReport {
  preset: StepPreset;
  features: Features;
  /** Time to compute the features of all batches. */
  features_seconds: number;
  losses: number[];
  /** Images of each step. */
  images: number[];
  trainable: number;
  kernels?: KernelTime[];
}

const ADAMW = {
  adam_beta1: 0.9,
  adam_beta2: 0.999,
  adam_epsilon: 1e-8,
  weight_decay: 0.01,
  max_grad_norm: 1,
};

/** Loads the model, trains `steps` updates and reports their times. */
export async function runSteps(o: StepOptions): Promise<StepReport> {
  const opened = await open(o, (name) => o.preset !== 'lora' && name.startsWith('qformer.'));
  const model = await withPreset(opened.model, o);
  const trainables = trainable(model.params);
  const batches = await readWork(o.work);
  const optimizer = createAdamW(trainables, ADAMW);
  const frozen_layers = frozenDepth(model.config, trainables.keys());
  const images = new Images(model, o, frozen_layers);
  const [load_seconds, loaded_rss_bytes] = [sinceStart(), peakMemory()];
  const { gpuPeak } = opened;
  const loading = gpuPeak?.() ?? 0;
  if (o.features === 'ready') await fillAll(model, trainables.keys(), batches, images);
  const features_seconds = sinceStart() - load_seconds;
  const features = gpuPeak?.() ?? 0;

  const clock = o.kernels ? watchKernels(getBackend()) : undefined;
  const parts = trainParts({ model, trainables, optimizer, batches, images, frozen_layers }, o);
  const { seconds, losses } = await timed(parts, o, clock?.reset);
  return {
    ...{ side: 'ours', threads: o.threads, precision: o.precision, preset: o.preset, features: o.features },
    ...{ load_seconds, loaded_rss_bytes, features_seconds, seconds, losses },
    images: seconds.map((_, i) => batches[i % batches.length].shape[0]),
    trainable: [...trainables.values()].reduce((sum, x) => sum + x.size, 0),
    peak_rss_bytes: peakMemory(),
    ...(gpuPeak && gpuBytes([loading, features, gpuPeak()])),
    ...(clock && { kernels: clock.perStep(Math.max(1, o.steps - 1)) }),
  };
}

/** What the trainer's cache does before the first step. */
async function fillAll(
  model: Blip2,
  trainables: Iterable<string>,
  batches: readonly WorkBatch[],
  images: Images,
): Promise<void> {
  for (const batch of batches) await images.fill(batch);
  const stage = cacheableStage(model.config, trainables);
  if (stage) releaseStage(model, stage);
}

const gpuBytes = (gpu_phases: readonly [number, number, number]) => ({
  gpu_phases,
  gpu_bytes: Math.max(...gpu_phases),
});

async function withPreset(model: Blip2, o: StepOptions): Promise<Blip2> {
  const base = adapterBase(model.config);
  const params = o.adapter
    ? applyAdapter(model.params, await loadAdapter(o.adapter), { trainable: true, ...base })
    : applyPreset(model.params, o.preset, upperLayers(model, o.upper), 0, base).params;
  return { ...model, params };
}

function upperLayers({ config }: Blip2, upper = 0) {
  const { num_hidden_layers: L } = config.text_config;
  return upper === 0 ? {} : { layers_to_transform: Array.from({ length: upper }, (_, i) => L - upper + i) };
}

/** Runs the trainer's loop; the first step is not part of the kernels' times. */
async function timed(parts: TrainParts<Ready>, o: StepOptions, afterFirst?: () => void) {
  const [seconds, losses]: [number[], number[]] = [[], []];
  let before = 0;
  const never = o.steps + 1;
  const settings = { totalSteps: o.steps, gradient_accumulation_steps: 1, seed: 0, logging_steps: 1 };
  await train(
    parts,
    { ...settings, eval_steps: never, save_steps: never },
    {
      onLog: (row) => {
        seconds.push(row.seconds - before);
        losses.push(row.loss);
        before = row.seconds;
        if (seconds.length === 1) afterFirst?.();
      },
    },
  );
  return { seconds, losses };
}

/** A batch with its image tensors, which are freed after the step. */
interface Ready {
  tokens: WorkBatch;
  image: LossInput;
}

interface Training {
  model: Blip2;
  trainables: Map<string, Variable>;
  optimizer: ReturnType<typeof createAdamW>;
  batches: WorkBatch[];
  images: Images;
  frozen_layers: number;
}

function trainParts(training: Training, o: StepOptions): TrainParts<Ready> {
  const { model, trainables, optimizer, batches, images, frozen_layers } = training;
  return {
    trainables,
    optimizer,
    schedule: () => o.lr,
    batchesPerEpoch: batches.length,
    async *batches(_epoch, first) {
      for (const tokens of batches.slice(first)) {
        const image = await images.input(tokens);
        yield { tokens, image };
        dispose(Object.values(image));
      }
    },
    size: ({ tokens }) => ({
      tokens: tokens.labels!.reduce((count, label) => count + (label >= 0 ? 1 : 0), 0),
      images: tokens.shape[0],
    }),
    loss: ({ tokens, image }, key) =>
      loss(model, image, tokens, { dropout: dropoutKeys(o, key), frozen_layers }),
  };
}

/** As in the trainer, only parts that train have dropout. */
function dropoutKeys({ preset, noDropout }: StepOptions, key: Key) {
  if (noDropout) return {};
  return {
    ...(preset !== 'qformer' && { language_model: fold(key, 'language_model') }),
    ...(preset !== 'lora' && { qformer: fold(key, 'qformer') }),
  };
}

/** Images as input of a step: pixels, or what the trainer's caches hold of the frozen parts and layers. */
class Images {
  private readonly pictures: Pictures;
  private readonly features = new Map<WorkBatch, { values: Float32Array; shape: number[] }>();

  constructor(
    private readonly model: Blip2,
    private readonly o: StepOptions,
    private readonly frozen_layers: number,
  ) {
    this.pictures = new Pictures(o.model);
  }

  async input(batch: WorkBatch): Promise<LossInput> {
    const known = this.features.get(batch);
    if (!known) return { pixel_values: await this.pictures.of(batch) };
    const x = tensor(known.values, known.shape);
    if (this.frozen_layers > 0) return { hidden: x as Tensor2D };
    return this.o.preset === 'lora' ? { query_embeds: x as Tensor3D } : { image_features: x as Tensor3D };
  }

  /** Runs the frozen parts of one batch. */
  async fill(batch: WorkBatch): Promise<void> {
    const pixels = await this.pictures.of(batch);
    const output = tidy((): Tensor => {
      if (this.frozen_layers > 0)
        return hiddenBelow(this.model, { pixel_values: pixels }, batch, this.frozen_layers);
      const features = imageFeatures(this.model, pixels);
      return this.o.preset === 'lora' ? queryEmbeds(this.model, features) : features;
    });
    this.features.set(batch, { values: (await output.data()) as Float32Array, shape: output.shape });
    dispose([pixels, output]);
  }
}
