/** The trajectory of many AdamW updates of a part of the model, with the trainer's optimizer, without dropout. */
import { resolve } from 'node:path';
import { adapterBase, loss } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import {
  dispose,
  flatten,
  globalNorm,
  matchNames,
  replaceLeaves,
  tidy,
  trainableLeaves,
  valueAndGrads,
  variable,
} from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { createAdamW, disposeAdamW, updateAdamW } from '@blip2/trainer';
import type { CheckOf } from './case-file';
import { compareAll } from './compare';
import type { Finding, Values } from './compare';
import { batchOf } from './inputs';
import type { Setup } from './inputs';

export async function checkTrajectory(check: CheckOf<'trajectory'>, { of, base }: Setup): Promise<Finding> {
  const model = await trainingModel(check, of.folder, await base());
  const trainables = trainableLeaves(model.params);
  const batches = await Promise.all(check.batches.map((name) => batchOf(of, name)));
  const { learning_rates, ...options } = check.optimizer;
  const optimizer = createAdamW(trainables, options);
  const leaves = [...trainables.values()];
  const trajectory: { losses: number[]; norms: number[] } = { losses: [], norms: [] };
  for (const [step, rate] of learning_rates.entries()) {
    const { image, tokens } = batches[step % batches.length];
    const { value, grads } = tidy(() => valueAndGrads(() => loss(model, image, tokens), leaves));
    const norm = globalNorm(grads);
    trajectory.losses.push((await value.data())[0]);
    trajectory.norms.push((await norm.data())[0]);
    updateAdamW(optimizer, grads, norm, rate);
    dispose([value, norm, ...grads]);
  }
  const results = new Map<string, Tensor | Values>(Object.entries(trajectory));
  for (const [name, leaf] of trainables) results.set(`final ${name.replace('.lora.', '.')}`, leaf);
  try {
    return await compareAll(of, check.expect, results);
  } finally {
    disposeAdamW(optimizer);
    for (const leaf of leaves) leaf.dispose();
  }
}

/** The base with a trainable adapter, or with the tensors that `trains` names as Variables. */
async function trainingModel(check: CheckOf<'trajectory'>, folder: string, base: Blip2): Promise<Blip2> {
  const adapted = check.adapter
    ? applyAdapter(base.params, await loadAdapter(resolve(folder, check.adapter)), {
        trainable: true,
        ...adapterBase(base.config),
      })
    : base.params;
  const names = new Set(matchNames(flatten(adapted).keys(), check.trains));
  return { ...base, params: replaceLeaves(adapted, (name, t) => (names.has(name) ? variable(t, name) : t)) };
}
