/** One update: gradients of a group of micro-batches, a look at loss and norm, the optimizer. */
import type { Key, Scalar, Tensor, Variable } from '@blip2/nn';
import {
  add,
  concat,
  dispose,
  fold,
  globalNorm,
  reshape,
  rngKey,
  scale,
  tidy,
  valueAndGrads,
} from '@blip2/nn';
import type { AdamW } from './optimizer';
import { updateAdamW } from './optimizer';
import type { Schedule } from './schedule';

export interface TrainParts<B> {
  trainables: Map<string, Variable>;
  optimizer: AdamW;
  schedule: Schedule;
  /** mean loss over the labelled tokens of a micro-batch; `key` is all the randomness it may use */
  loss(batch: B, key: Key): Scalar;
  /** how much a micro-batch counts: its labelled tokens weigh the loss, its images are reported */
  size(batch: B): { tokens: number; images: number };
  /** the micro-batches of an epoch from number `first` on: the same for the same arguments */
  batches(epoch: number, first: number): AsyncIterable<B>;
  batchesPerEpoch: number;
}

/** Names the first bad tensor of a step, for the error. */
export type Locate<B> = (batches: B[], keys: Key[], grads: Map<string, Tensor>) => Promise<string>;

/** Loss or gradient is not a finite number. The weights are those before the bad step. */
export class NonFiniteError extends Error {
  constructor(
    readonly step: number,
    readonly tensor: string,
    loss: number,
    norm: number,
  ) {
    super(
      `step ${step}: the loss is ${loss} and the gradient norm ${norm}; the first tensor that is not finite is ${tensor}. ` +
        'The update was not made.',
    );
    this.name = 'NonFiniteError';
  }
}

/** One update: forward and backward over its micro-batches, a look at loss and norm, then the optimizer. */
export async function trainStep<B>(
  parts: TrainParts<B>,
  group: B[],
  { seed, step, lr }: { seed: number; step: number; lr: number },
  locate?: Locate<B>,
): Promise<{ loss: number; norm: number }> {
  const keys = group.map((_, micro) => dropoutKey(seed, step, micro));
  const { value, grads } = accumulate(parts, group, keys);
  const norm = tidy(() => globalNorm(grads));
  try {
    const [loss, normValue] = await readScalars([value, norm]);
    if (!Number.isFinite(loss) || !Number.isFinite(normValue)) {
      const named = new Map([...parts.trainables.keys()].map((name, i) => [name, grads[i]]));
      const tensor = (await locate?.(group, keys, named)) ?? (await firstBad(named)) ?? 'the loss';
      throw new NonFiniteError(step + 1, tensor, loss, normValue);
    }
    updateAdamW(parts.optimizer, grads, norm, lr);
    return { loss, norm: normValue };
  } finally {
    dispose([value, norm, ...grads]);
  }
}

/** The stream of one micro-batch; the same after a restart. */
function dropoutKey(seed: number, step: number, micro: number): Key {
  return fold(fold(fold(rngKey(seed), 'dropout'), step), micro);
}

/** Gradients of the mean over all labelled tokens of the group, as if it were one batch (transformers ≥ 4.46). */
function accumulate<B>(parts: TrainParts<B>, group: B[], keys: Key[]): { value: Scalar; grads: Tensor[] } {
  const xs = [...parts.trainables.values()];
  const tokens = group.map((batch) => parts.size(batch).tokens);
  const all = tokens.reduce((a, b) => a + b, 0);
  let sum: { value: Scalar; grads: Tensor[] } | undefined;
  group.forEach((batch, i) => {
    const share = tokens[i] / all;
    const sofar = sum;
    sum = tidy(() => {
      const f = () => {
        const loss = parts.loss(batch, keys[i]);
        return share === 1 ? loss : (scale(loss, share) as Scalar);
      };
      const { value, grads } = valueAndGrads(f, xs);
      if (!sofar) return { value, grads };
      return { value: add(sofar.value, value) as Scalar, grads: grads.map((g, j) => add(sofar.grads[j], g)) };
    });
    if (sofar) dispose([sofar.value, ...sofar.grads]);
  });
  return sum!;
}

/** Several scalars in one asynchronous read. */
async function readScalars(scalars: Scalar[]): Promise<Float32Array> {
  const joined = tidy(() =>
    concat(
      scalars.map((x) => reshape(x, [1])),
      0,
    ),
  );
  try {
    return (await joined.data()) as Float32Array;
  } finally {
    dispose(joined);
  }
}

/** The name of the first tensor that holds a value that is not finite. */
export async function firstBad(tensors: Map<string, Tensor>): Promise<string | undefined> {
  for (const [name, x] of tensors) {
    const values = await x.data();
    if (!values.every(Number.isFinite)) return name;
  }
  return undefined;
}
