/** One update: gradients of a group of micro-batches, a check of loss and norm, the optimizer, and a check of the weights. */
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
  tensor,
  tidy,
  valueAndGrads,
  zeros,
} from '@blip2/nn';
import type { AdamW } from './optimizer';
import { updateAdamW } from './optimizer';
import type { Schedule } from './schedule';
import type { World } from './world';
import { alone, failTogether, sumNumbers } from './world';

export interface TrainParts<B> {
  trainables: Map<string, Variable>;
  optimizer: AdamW;
  schedule: Schedule;
  /** mean loss over the labelled tokens of a micro-batch; all randomness comes from `key` */
  loss(batch: B, key: Key): Scalar;
  /** the size of a micro-batch: labelled tokens, which weight the loss, and images, which are reported */
  size(batch: B): { tokens: number; images: number };
  /** the micro-batches of an epoch from number `first` on; equal arguments give equal batches */
  batches(epoch: number, first: number): AsyncIterable<B>;
  batchesPerEpoch: number;
  /** the processes that train together; `batches` are this rank's share, of which the last may be empty. Default: alone */
  world?: World;
}

/** Finds the first tensor of a step that is not finite, for the error. */
export type Locate<B> = (batches: B[], keys: Key[], grads: Map<string, Tensor>) => Promise<string>;

/** Training has broken down: a loss, a gradient or a weight is not finite. */
export class NonFiniteError extends Error {
  override name = 'NonFiniteError';
  constructor(
    message: string,
    /** the update was not made, so the weights are still those before it */
    readonly weightsAreFinite: boolean,
  ) {
    super(message);
  }
}

/**
 * Looks at the norm over all tensors: one number is read.
 * @throws NonFiniteError that names the first tensor that is not finite
 */
export async function requireFinite(step: number, tensors: Map<string, Tensor>): Promise<void> {
  const norm = tidy(() => globalNorm([...tensors.values()]));
  const isFinite = Number.isFinite((await norm.data())[0]);
  dispose(norm);
  const tensor = isFinite ? undefined : await firstBad(tensors); // a norm can overflow although no value has
  if (tensor === undefined) return;
  throw new NonFiniteError(`step ${step}: the update left values in ${tensor} that are not finite.`, false);
}

/**
 * One update: forward and backward over its micro-batches, a check of loss and norm, the optimizer, and a check of the weights.
 * @throws NonFiniteError; an error of this rank, or the RankError of another one: on all ranks before the update
 */
export async function trainStep<B>(
  parts: TrainParts<B>,
  group: B[],
  { seed, step, lr }: { seed: number; step: number; lr: number },
  locate?: Locate<B>,
): Promise<{ loss: number; norm: number }> {
  const { world = alone } = parts;
  const keys = group.map((_, micro) => dropoutKey(seed, step, micro * world.size + world.rank));
  const tokens = await sumTokens(
    world,
    group.reduce((sum, batch) => sum + parts.size(batch).tokens, 0),
  );
  const { value, grads } = await sumShares(parts, () => accumulate(parts, group, keys, tokens));
  const norm = tidy(() => globalNorm(grads));
  try {
    const [loss, normValue] = await readScalars([value, norm]);
    if (!Number.isFinite(loss) || !Number.isFinite(normValue)) {
      const named = new Map([...parts.trainables.keys()].map((name, i) => [name, grads[i]]));
      const tensor = (await locate?.(group, keys, named)) ?? (await firstBad(named)) ?? 'the loss';
      throw new NonFiniteError(
        `step ${step + 1}: the loss is ${loss} and the gradient norm ${normValue}; the first tensor that is not finite is ` +
          `${tensor}. The update was not made.`,
        true,
      );
    }
    updateAdamW(parts.optimizer, grads, norm, lr);
    await requireFinite(step + 1, parts.trainables);
    return { loss, norm: normValue };
  } finally {
    dispose([value, norm, ...grads]);
  }
}

/** The labelled tokens of an update on all ranks. @throws as shareWork, if a rank has called `failStep` instead */
async function sumTokens(world: World, own: number): Promise<number> {
  const [tokens, failed] = await sumNumbers(world, [own, 0]);
  return failed > 0 ? failTogether(world) : tokens;
}

/** In place of a `trainStep` that this rank cannot begin. @throws as shareWork */
export async function failStep(world: World, error: unknown): Promise<never> {
  if (world.size === 1) throw error;
  await sumNumbers(world, [0, 1]);
  return failTogether(world, error);
}

/** The sum of all ranks' shares. An error of one is sent with it. @throws as shareWork */
async function sumShares<B>(
  { trainables, world = alone }: TrainParts<B>,
  compute: () => LossAndGrads,
): Promise<LossAndGrads> {
  if (world.size === 1) return compute();
  const [own] = await Promise.allSettled([(async () => compute())()]);
  const error: unknown = own.status === 'rejected' ? own.reason : undefined;
  const { value, grads } = own.status === 'fulfilled' ? own.value : nothing(trainables);
  const flag = tensor([own.status === 'rejected' ? 1 : 0], [1]);
  const [flags, ...sums] = await world.sum([flag, value, ...grads]);
  const [failed] = await flags.data();
  dispose(flags);
  if (failed === 0) return { value: sums[0] as Scalar, grads: sums.slice(1) };
  dispose(sums);
  return failTogether(world, error);
}

/** The random key of one micro-batch; the same after a restart. */
function dropoutKey(seed: number, step: number, micro: number): Key {
  return fold(fold(fold(rngKey(seed), 'dropout'), step), micro);
}

interface LossAndGrads {
  value: Scalar;
  grads: Tensor[];
}

/**
 * This rank's share in loss and gradients of the mean over the `all` labelled tokens of an update, as if its micro-batches on
 * all ranks were one batch (transformers ≥ 4.46).
 */
function accumulate<B>(parts: TrainParts<B>, group: B[], keys: Key[], all: number): LossAndGrads {
  const xs = [...parts.trainables.values()];
  let total: LossAndGrads | undefined;
  for (const [i, batch] of group.entries()) {
    const { tokens } = parts.size(batch);
    if (tokens === 0) continue; // other ranks have all rows of this batch
    const share = tokens / all;
    const before: LossAndGrads | undefined = total;
    total = tidy(() => {
      const f = () => {
        const loss = parts.loss(batch, keys[i]);
        return share === 1 ? loss : (scale(loss, share) as Scalar);
      };
      const { value, grads } = valueAndGrads(f, xs);
      if (!before) return { value, grads };
      return {
        value: add(before.value, value) as Scalar,
        grads: grads.map((g, j) => add(before.grads[j], g)),
      };
    });
    if (before) dispose([before.value, ...before.grads]);
  }
  return total ?? nothing(parts.trainables);
}

/** The share of a rank without rows. */
const nothing = (trainables: ReadonlyMap<string, Variable>): LossAndGrads =>
  tidy(() => ({
    value: zeros([]) as Scalar,
    grads: [...trainables.values()].map(({ shape }) => zeros(shape)),
  }));

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
