/** 30 updates with the trainer's loop and optimizer, beside transformers, PEFT and torch (fixtures/retrieval, tools/parity). */
import { fileURLToPath } from 'node:url';
import { flatten, nest, tensor, trainableLeaves, variable } from '@blip2/nn';
import type { Tensor, Tensor3D, Variable } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { applyAdapter, applyPreset } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { firstStageLoss, initFirstStage, togetherOf } from '@blip2/retrieval';
import type { FirstStage, Negatives, Pairs, RetrievalModel } from '@blip2/retrieval';
import { loadRetrievalModel } from '@blip2/retrieval/node';
import { openWeights } from '@blip2/weights/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { defaultConfig } from '../config';
import { TINY_RETRIEVAL } from '../../spec/tiny-retrieval';
import { createAdamW, disposeAdamW } from '../train/optimizer';
import { train } from '../train/train';
import { RETRIEVAL_BASE, retrievalPreset } from './presets';

const FIXTURES = fileURLToPath(new URL('../../fixtures/retrieval/', import.meta.url));
const OPTIMIZER = {
  ...{ adam_beta1: 0.9, adam_beta2: 0.98, adam_epsilon: 1e-8, weight_decay: 0.05, max_grad_norm: 1 },
};
const [STEPS, COUNT, BATCH, START, N, E] = [30, 6, 4, 5, 17, 24];

async function readAll(file: string): Promise<Map<string, { shape: number[]; values: Float32Array }>> {
  const reader = await openWeights(file);
  try {
    const all = [...reader.entries].map(async ([name, { shape, dtype }]) => {
      const raw = dtype === 'I32' ? await reader.readRaw(name) : undefined;
      const values = raw
        ? Float32Array.from(new Int32Array(raw.slice().buffer))
        : await reader.readFloat32(name);
      return [name, { shape, values }] as const;
    });
    return new Map(await Promise.all(all));
  } finally {
    await reader.close();
  }
}

type Fixture = Awaited<ReturnType<typeof readAll>>;
type Stage = { model: RetrievalModel; stage: FirstStage; trainables: Map<string, Variable> };

/** The model with its first stage, of which the same tensors train as in the fixture. */
async function opened(kind: string, fixture: Fixture): Promise<Stage> {
  const base = await loadRetrievalModel(TINY_RETRIEVAL, { store_from: Infinity });
  const head = [...fixture].filter(([name]) => name.startsWith('head.'));
  const given = nest(
    head.map(([name, { values, shape }]) => [name.slice('head.'.length), tensor(values, shape)]),
  ) as Omit<FirstStage, 'temperature'>;
  const first_stage = { ...initFirstStage(base.config, 0), ...given };
  const params =
    kind === 'lora'
      ? {
          ...applyAdapter(base.params, await loadAdapter(`${FIXTURES}adapter`), {
            trainable: true,
            ...RETRIEVAL_BASE,
          }),
          first_stage: nest(
            [...flatten(first_stage)].map(([name, x]): [string, Tensor] => [name, variable(x)]),
          ) as FirstStage,
        }
      : applyPreset(
          { ...base.params, first_stage },
          retrievalPreset({ ...defaultConfig('qformer-projection'), preset: 'qformer-projection' }),
        ).params;
  return {
    model: { config: base.config, params },
    stage: params.first_stage,
    trainables: trainableLeaves(params),
  };
}

/** The pairs of an update. */
function pairsOf(fixture: Fixture, step: number): Pairs {
  const at = Array.from({ length: BATCH }, (_, i) => (step * 3 + i) % COUNT);
  const rowsOf = (name: string, size: number) =>
    at.flatMap((row) => [...fixture.get(name)!.values.subarray(row * size, (row + 1) * size)]);
  const T = fixture.get('input_ids')!.shape[1];
  const rows = {
    input_ids: Int32Array.from(rowsOf('input_ids', T)),
    attention_mask: Int32Array.from(rowsOf('attention_mask', T)),
    shape: [BATCH, T] as [number, number],
  };
  const tokens = tensor<Tensor3D>(Float32Array.from(rowsOf('tokens', N * E)), [BATCH, N, E]);
  return { tokens, rows, together: togetherOf(rowsOf('pictures', 1), rows) };
}

/** Of each update: the loss and the norm of the gradients; and the final weights. */
async function course(kind: string, fixture: Fixture) {
  const { model, stage, trainables } = await opened(kind, fixture);
  const optimizer = createAdamW(trainables, OPTIMIZER);
  const recorded = (name: string, step: number) =>
    Int32Array.from(fixture.get(`${kind}.${name}`)!.values.subarray(step * BATCH, (step + 1) * BATCH));
  const found = { losses: [] as number[], norms: [] as number[] };
  const batches = async function* (epoch: number): AsyncGenerator<Pairs & { negatives: Negatives }> {
    const pairs = pairsOf(fixture, epoch);
    const negatives = {
      imageOfText: recorded('image_of_text', epoch),
      textOfImage: recorded('text_of_image', epoch),
    };
    yield { ...pairs, negatives };
  };
  await train(
    {
      ...{ trainables, optimizer, batches, batchesPerEpoch: 1 },
      schedule: () => 1e-3,
      size: () => ({ images: BATCH, tokens: BATCH }),
      loss: (batch) => firstStageLoss(model, stage, { ...batch, start: START }),
    },
    {
      ...{ totalSteps: STEPS, gradient_accumulation_steps: 1, seed: 0 },
      ...{ logging_steps: 1, eval_steps: STEPS, save_steps: STEPS },
    },
    {
      onLog: ({ loss, grad_norm }) => {
        found.losses.push(loss);
        found.norms.push(grad_norm);
      },
    },
  );
  disposeAdamW(optimizer);
  return { ...found, trainables };
}

/** As the script names it. */
const inFixture = (name: string) =>
  name
    .replace('.lora.', '.')
    .replace('first_stage.temperature', 'temperature')
    .replace(/^first_stage\./, 'head.');

describe('30 updates', () => {
  // The fastest backend is enough; retrieval's suite compares losses and gradients on each.
  beforeAll(
    async () => void (await useBackend((await availableBackends()).includes('native') ? 'native' : 'cpu')),
  );

  it.each(['qformer-projection', 'lora'])(
    'of %s equal those of transformers, PEFT and torch',
    async (kind) => {
      const fixture = await readAll(`${FIXTURES}course.safetensors`);
      const { losses, norms, trainables } = await course(kind, fixture);
      for (const [name, values] of Object.entries({ losses, norms })) {
        const expected = fixture.get(`${kind}.${name}`)!.values;
        const errors = values.map((x, i) => Math.abs(x / expected[i] - 1));
        expect(Math.max(...errors), name).toBeLessThan(1e-4);
      }
      const finals = [...fixture.keys()].filter((name) => name.startsWith(`${kind}.final.`));
      expect([...trainables.keys()].map((name) => `${kind}.final.${inFixture(name)}`).sort()).toEqual(
        finals.sort(),
      );
      for (const [name, leaf] of trainables) {
        if (name.endsWith('key.bias')) continue; // softmax cancels it, so its gradient is rounding, of which AdamW makes whole steps
        const { values } = fixture.get(`${kind}.final.${inFixture(name)}`)!;
        const scale = Math.max(...values.map(Math.abs), 1e-2);
        const own = await leaf.data();
        const error = Math.max(...values.map((x, i) => Math.abs(x - own[i]))) / scale;
        expect(error, name).toBeLessThan(1e-3);
      }
    },
  );
});
