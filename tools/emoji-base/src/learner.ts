// The state of a pretraining run (model, heads of the losses, AdamW's moments), one update, saving and resuming.
import { join } from 'node:path';
import { initModel, parseConfig } from '@blip2/blip2';
import type { Blip2, Blip2Config } from '@blip2/blip2';
import {
  dispose,
  fold,
  globalNorm,
  keep,
  replaceLeaves,
  rngKey,
  tensor,
  tidy,
  trainableLeaves,
  valueAndGrads,
  variable,
} from '@blip2/nn';
import type { Scalar, Variable } from '@blip2/nn';
import { createAdamW, moments, updateAdamW } from '@blip2/trainer';
import type { AdamW } from '@blip2/trainer';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import type { BaseBatch } from './batches';
import { initHeads, lossParts, totalLoss } from './losses';
import type { Heads, LossName } from './losses';
import { BASE_CONFIG } from './model-files';

const ADAMW = { adam_beta1: 0.9, adam_beta2: 0.98, adam_epsilon: 1e-8, weight_decay: 0.05, max_grad_norm: 1 };

export interface Learner {
  model: Blip2;
  heads: Heads;
  optimizer: AdamW;
}

/** Progress of a run; saved with the tensors. */
export interface Progress {
  /** Number of updates. */
  step: number;
  images: number;
  /** Seconds of training without evaluation, over all sessions. */
  seconds: number;
}

/** A new learner that trains every tensor of the model. */
export function createLearner(seed: number): Learner {
  const config = parseConfig(BASE_CONFIG, 'the base');
  const frozen = initModel(config, seed);
  const { vocab_size, hidden_size } = config.text_config;
  const frozenHeads = initHeads(vocab_size, hidden_size, fold(rngKey(seed), 'heads'));
  const params = replaceLeaves(frozen.params, (_, x) => variable(x));
  const heads = replaceLeaves(frozenHeads, (_, x) => variable(x));
  dispose(frozen.params);
  dispose(frozenHeads);
  const trainables = trainableLeaves({ model: params, head: heads });
  const optimizer = createAdamW(trainables, ADAMW, decays);
  return { model: { config: config satisfies Blip2Config, params }, heads, optimizer };
}

/**
 * Whether a tensor has weight decay: matrices and the patch convolution; not biases, norms, positions, class token
 * and queries.
 */
function decays({ shape }: Variable, name: string): boolean {
  return (shape.length === 2 || shape.length === 4) && !name.includes('position');
}

/** Losses of one update as numbers. */
export type StepReport = Record<LossName | 'total' | 'norm', number>;

/** One forward and backward pass and one AdamW update in place. */
export async function update(learner: Learner, batch: BaseBatch, lr: number): Promise<StepReport> {
  const { model, heads, optimizer } = learner;
  let parts = {} as Record<LossName, Scalar>;
  const { value, norm } = tidy(() => {
    const { value, grads } = valueAndGrads(
      () => {
        parts = lossParts(model, heads, batch);
        Object.values(parts).forEach(keep);
        return totalLoss(parts);
      },
      optimizer.slots.map(({ param }) => param),
    );
    const norm = globalNorm(grads);
    updateAdamW(optimizer, grads, norm, lr);
    return { value, norm };
  });
  const scalars = { ...parts, total: value, norm };
  const report = {} as StepReport;
  for (const [name, x] of Object.entries(scalars)) {
    report[name as keyof StepReport] = (await x.data())[0];
    x.dispose();
  }
  if (!Number.isFinite(report.total + report.norm))
    throw new Error(
      `step ${optimizer.step}: expected a finite loss and gradient norm, found ${report.total} and ${report.norm}`,
    );
  return report;
}

const STATE = 'state.safetensors';

function tensorsOf({ optimizer }: Learner): [string, Variable][] {
  return [
    ...optimizer.slots.map(({ name, param }): [string, Variable] => [name, param]),
    ...moments(optimizer),
  ];
}

/** Writes everything that a resumed run needs to `folder`/state.safetensors (float32, about 78 MB), atomically. */
export async function saveState(learner: Learner, progress: Progress, folder: string): Promise<void> {
  const tensors = tensorsOf(learner).map(([name, x]) => ({
    name,
    dtype: 'F32' as const,
    shape: x.shape,
    data: async () => (await x.data()) as Float32Array,
  }));
  await writeSafetensors(join(folder, STATE), tensors, { format: 'pt', progress: JSON.stringify(progress) });
}

/**
 * Loads the state that `saveState` wrote into the learner's variables.
 * @throws if the file is missing or of another model
 */
export async function loadState(learner: Learner, folder: string): Promise<Progress> {
  const reader = await openWeights(join(folder, STATE));
  try {
    for (const [name, x] of tensorsOf(learner)) {
      const shape = reader.entries.get(name)?.shape;
      if (shape?.join() !== x.shape.join())
        throw new Error(`${folder}/${STATE}: ${name}: expected [${x.shape}], found [${shape ?? 'nothing'}]`);
      const values = tensor(await reader.readFloat32(name), x.shape);
      x.assign(values);
      values.dispose();
    }
    const progress = JSON.parse(reader.metadata.progress) as Progress;
    learner.optimizer.step = progress.step;
    return progress;
  } finally {
    await reader.close();
  }
}
