/** A two-tensor regression for the specs of the loop: y ≈ x·weightᵀ + bias, mean squared error. */
import type { Key, Scalar, Tensor, Variable } from '@blip2/nn';
import { dropout, linear, mean, mul, sub, tensor, tidy, variable } from '@blip2/nn';
import type { AdamWOptions } from '../src/train/optimizer';
import { createAdamW } from '../src/train/optimizer';
import type { TrainParts } from '../src/train/step';

export interface ToyBatch {
  x: number[][];
  y: number[][];
}

export const ADAMW: AdamWOptions = {
  adam_beta1: 0.9,
  adam_beta2: 0.98,
  adam_epsilon: 1e-8,
  weight_decay: 0.1,
  max_grad_norm: 0,
};

const range = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));

/** 6 rows of inputs [4] and targets [3], the same as in the fixture's script. */
export const ROWS: ToyBatch = {
  x: range(6, (row) => range(4, (i) => Math.sin(row * 4 + i))),
  y: range(6, (row) => range(3, (i) => Math.cos(row * 3 + i))),
};

export function toyTrainables(): Map<string, Variable> {
  const make = (values: number[], shape: number[]) => tidy(() => variable(tensor(values, shape)));
  return new Map([
    [
      'weight',
      make(
        range(12, (i) => Math.sin(i * 0.7)),
        [3, 4],
      ),
    ],
    ['bias', make(range(3, Math.cos), [3])],
  ]);
}

export function toyLoss(trainables: Map<string, Variable>, { x, y }: ToyBatch, key?: Key, rate = 0): Scalar {
  const p = { weight: trainables.get('weight')!, bias: trainables.get('bias')! };
  const input = dropout(tensor(x.flat(), [x.length, 4]), rate, key);
  const error = sub(linear(p as never, input) as Tensor, tensor(y.flat(), [y.length, 3]));
  return mean(mul(error, error)) as Scalar;
}

/** Six rows in micro-batches of `batch` rows; three "tokens" per row. */
export function toyParts(o: { batch: number; options?: Partial<AdamWOptions>; rate?: number; lr?: number }) {
  const trainables = toyTrainables();
  const starts = range(Math.ceil(6 / o.batch), (i) => i * o.batch);
  const parts: TrainParts<ToyBatch> = {
    trainables,
    optimizer: createAdamW(trainables, { ...ADAMW, ...o.options }),
    schedule: () => o.lr ?? 0.05,
    loss: (batch, key) => toyLoss(trainables, batch, key, o.rate),
    size: ({ x }) => ({ tokens: x.length * 3, images: x.length }),
    batchesPerEpoch: starts.length,
    async *batches(_epoch, first) {
      for (const at of starts.slice(first))
        yield { x: ROWS.x.slice(at, at + o.batch), y: ROWS.y.slice(at, at + o.batch) };
    },
  };
  return parts;
}

export async function valuesOf(tensors: Map<string, Tensor>): Promise<Record<string, number[]>> {
  const out: Record<string, number[]> = {};
  for (const [name, x] of tensors) out[name] = [...(await x.data())];
  return out;
}
