/** Fine-tuning on the pictures of a session: what `blip2 fit` does, without files. */
import { adapterBase, frozenDepth, loss } from '@blip2/blip2';
import type { Blip2, LossInput } from '@blip2/blip2';
import { batches, countBatches, readyDataset } from '@blip2/data-captions';
import type { Batch } from '@blip2/data-captions';
import { countParameters, dispose, flatten } from '@blip2/nn';
import { adapterFiles, applyPreset } from '@blip2/peft-lora';
import type { Prepared, PresetName } from '@blip2/peft-lora';
import { createAdamW, disposeAdamW, makeSchedule, partKeys, train } from '@blip2/trainer';
import type { TrainParts, TrainResult } from '@blip2/trainer';
import { safetensorsBytes } from '@blip2/weights';
import { imageInput } from './session';
import type { Session } from './session';

export interface FitSettings {
  /** 'lora', 'qformer-projection' or both; the vision tower does not train */
  preset: Exclude<PresetName, 'full'>;
  steps: number;
  learning_rate: number;
  batch_size: number;
  seed: number;
}

export interface Row {
  /** name of a picture of the session */
  image: string;
  caption: string;
}

export interface FitHooks {
  signal?: AbortSignal;
  onStep?(step: number, loss: number): void;
  /** after every `sample_steps` updates, and after the last one */
  onSample?(model: Blip2, step: number): Promise<void>;
  sample_steps: number;
}

export interface Trained {
  model: Blip2;
  /** updates that were made */
  steps: number;
  /** parameters that trained */
  trainable: number;
  /** the files of PEFT's adapter folder */
  files: Map<string, string | Uint8Array>;
  /** frees the trained weights; the base stays */
  free(): void;
}

/** A batch with the image input of its pictures, which is freed after its step. */
type Loaded = Batch & { input: LossInput };

/** `recipes/emoji-demo.yaml` has these. */
const OPTIMIZER = {
  adam_beta1: 0.9,
  adam_beta2: 0.98,
  adam_epsilon: 1e-8,
  weight_decay: 0.01,
  max_grad_norm: 1,
};
const BASE = './models/blip2-emoji-mini';

/** @throws DataError for captions that cannot be learned, and NonFiniteError if training breaks down */
export async function fit(
  session: Session,
  rows: readonly Row[],
  o: FitSettings,
  hooks: FitHooks,
): Promise<Trained> {
  const { model: base } = session;
  const known = adapterBase(base.config);
  const prepared = applyPreset(base.params, o.preset, {}, o.seed, known);
  const model = { ...base, params: prepared.params };
  const free = () => freeTrained(prepared, base);
  const parts = trainParts(session, model, prepared, rows, o);
  try {
    const result = await run(parts, model, o, hooks);
    const config = { ...prepared.adapter, base_model_name_or_path: BASE };
    const files = await written(adapterFiles(model.params, config, known.ties));
    return {
      model,
      steps: result.state.step,
      trainable: countParameters(prepared.trainables.values()),
      files,
      free,
    };
  } catch (error) {
    free();
    throw error;
  } finally {
    disposeAdamW(parts.optimizer);
  }
}

function run(parts: TrainParts<Loaded>, model: Blip2, o: FitSettings, hooks: FitHooks): Promise<TrainResult> {
  const options = {
    totalSteps: o.steps,
    gradient_accumulation_steps: 1,
    seed: o.seed,
    logging_steps: 1,
    eval_steps: o.steps,
    save_steps: o.steps,
    sample_steps: hooks.sample_steps,
  };
  return train(parts, options, {
    signal: hooks.signal,
    onLog: ({ step, loss }) => hooks.onStep?.(step, loss),
    sample: async ({ step }) => hooks.onSample?.(model, step),
  });
}

function trainParts(
  session: Session,
  model: Blip2,
  { trainables }: Prepared<Blip2['params']>,
  rows: readonly Row[],
  o: FitSettings,
): TrainParts<Loaded> {
  const examples = rows.map((row) => ({ ...row, fields: {}, source: row.image }));
  const data = readyDataset({ path: 'pictures', examples }, session.processor, { task: 'caption' });
  const batch_size = Math.min(o.batch_size, rows.length);
  const frozen_layers = frozenDepth(model.config, trainables.keys());
  return {
    trainables,
    optimizer: createAdamW(trainables, OPTIMIZER),
    schedule: makeSchedule(
      {
        learning_rate: o.learning_rate,
        lr_scheduler_type: 'cosine',
        warmup_ratio: 0.05,
        min_lr_ratio: 0,
      },
      o.steps,
    ),
    batchesPerEpoch: countBatches(rows.length, { batch_size }),
    async *batches(epoch, start_batch) {
      const order = { batch_size, seed: o.seed, epoch, start_batch, withPixels: false };
      for await (const batch of batches(data, session.processor, order)) {
        const input = await imageInput(session, batch.images);
        try {
          yield { ...batch, input };
        } finally {
          dispose(input);
        }
      }
    },
    size: ({ labels, examples: { length: images } }) => ({
      tokens: labels.filter((id) => id >= 0).length,
      images,
    }),
    loss: (batch, key) =>
      loss(model, batch.input, batch, { dropout: partKeys(key, trainables.keys()), frozen_layers }),
  };
}

/** Frees what the base does not have. */
function freeTrained({ params }: Prepared<Blip2['params']>, base: Blip2): void {
  const kept = new Set(flatten(base.params).values());
  for (const leaf of flatten(params).values()) if (!kept.has(leaf)) dispose(leaf);
}

async function written(files: ReturnType<typeof adapterFiles>): Promise<Trained['files']> {
  const out: Trained['files'] = new Map();
  for (const [name, content] of files)
    out.set(name, typeof content === 'string' ? content : await safetensorsBytes(content));
  return out;
}
