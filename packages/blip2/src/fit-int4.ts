/**
 * Rounds the text model to 4 bits so that its outputs on some pictures and texts change least (GPTQ, Frantar et al. 2023). Layers are rounded
 * in the order in which they run, each with the inputs that the rounded layers before it give, and used from then on.
 */
import {
  add,
  dispose,
  div,
  dropPages,
  flatten,
  inFloat32,
  inputRoot,
  keep,
  linear,
  mean,
  mul,
  quantised,
  sqrt,
  storedTensor,
  sub,
  sum,
  tensor,
  tidy,
  watchLinears,
} from '@blip2/nn';
import type { Scalar, StoredWeight, Tensor, Tensor2D } from '@blip2/nn';
import { openWeights } from '@blip2/weights/node';
import type { Blip2Config } from './config';
import { bitsOf, isRounded, loadWeights } from './load';
import type { Blip2 } from './model';
import { someRows } from './smoothing';
import type { LayerErrors } from './smoothing';
import { storedWeight } from './stored-weight';

/** Part of the mean diagonal that is added to the products of the inputs, as in the paper. */
const DAMPING = 0.01;

/** The rows on which the error of a layer is measured, to which it is not fitted. */
const leftOut = (x: Tensor) => someRows(x, 1 / 4);

export interface FitInt4Options {
  /** Called with each rounded weight, which is not kept. */
  onWeight: (name: string, weight: StoredWeight) => void;
  onProgress?: (done: number, total: number) => void;
}

/**
 * Runs the model of a checkpoint folder once on what `run` gives it, and rounds the weights of the text model to int4 meanwhile. Returns
 * the errors of the layers on at most 64 rows that they were not fitted to, with plain rounding and with this one. The precision int8 must be
 * active. At a time, memory has the inputs of one layer, three times its weight as float32, and a square matrix of the width of its input.
 */
export async function fitInt4(
  dir: string,
  config: Blip2Config,
  run: (model: Blip2) => Tensor,
  { onWeight, onProgress }: FitInt4Options,
): Promise<ReadonlyMap<string, LayerErrors>> {
  const reader = await openWeights(dir);
  try {
    const exact = (weight: StoredWeight, atLeast?: number) => inFloat32(() => storedTensor(weight, atLeast));
    const model = await loadWeights(config, reader, {}, undefined, exact);
    const weights = new Map<object, { name: string; stored: StoredWeight }>();
    for (const [name, { dataId, shape }] of flatten(model.params)) {
      const entry =
        isRounded(name, { shape }) && bitsOf(name, 4) === 4 ? reader.entries.get(name) : undefined;
      const stored = entry && (await storedWeight(entry, reader));
      if (stored && stored.encoding.kind !== 'INT4') weights.set(dataId, { name, stored });
    }
    const errors = new Map<string, Record<keyof LayerErrors, Scalar>>();
    const roots = new LastRoot();
    let used: Tensor | undefined;
    const watch = (weight: Tensor2D, x: Tensor): Tensor2D | undefined => {
      if (used) dropPages(used);
      used = weight;
      const found = weights.get(weight.dataId);
      if (!found || errors.has(found.name)) return undefined;
      const made = quantised(found.stored, undefined, 4, roots.of(x))!;
      onWeight(found.name, made);
      const rounded = storedTensor(made, 1)!;
      errors.set(found.name, {
        plain: errorOf(weight, storedTensor(quantised(found.stored, undefined, 4)!, 1)!, x),
        chosen: errorOf(weight, rounded, x),
      });
      onProgress?.(errors.size, weights.size);
      return rounded;
    };
    try {
      watchLinears(watch, () => run(model)).dispose();
    } finally {
      roots.dispose();
      dispose(model.params);
    }
    return await valuesOf(errors);
  } finally {
    await reader.close();
  }
}

/** The root of the last input: q, k and v have the same. */
class LastRoot {
  private last?: { input: object; root?: Tensor2D };

  of(x: Tensor): Tensor2D | undefined {
    if (this.last?.input === x.dataId) return this.last.root;
    this.dispose();
    const rows = leftOut(x);
    const root = inputRoot(x, rows, DAMPING);
    rows.dispose();
    if (root) keep(root);
    this.last = { input: x.dataId, root };
    return root;
  }

  dispose(): void {
    this.last?.root?.dispose();
    this.last = undefined;
  }
}

/** Root mean square over rows of |x·(rounded - weight)ᵀ| / |x·weightᵀ|. */
function errorOf(weight: Tensor2D, rounded: Tensor2D, x: Tensor): Scalar {
  return tidy(() => {
    const rows = leftOut(x);
    const wanted = inFloat32(() => linear({ weight }, rows));
    const change = sub(linear({ weight: rounded }, rows), wanted);
    const squares = (y: Tensor) => sum(mul(y, y), 1); // [rows]
    const size = add(squares(wanted), tensor([1e-30], [1])); // rows of zeros do not count
    return keep(sqrt(mean<Scalar>(div(squares(change), size))));
  });
}

async function valuesOf(
  errors: ReadonlyMap<string, Record<keyof LayerErrors, Scalar>>,
): Promise<Map<string, LayerErrors>> {
  const values = new Map<string, LayerErrors>();
  for (const [name, { plain, chosen }] of errors) {
    const [[a], [b]] = (await Promise.all([plain.data(), chosen.data()])) as [Float32Array, Float32Array];
    dispose([plain, chosen]);
    values.set(name, { plain: a!, chosen: b! });
  }
  return values;
}
