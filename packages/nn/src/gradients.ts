/**
 * Gradients of the tfjs kernels that our ops use. tfjs-core's Node build registers none, and importing a whole tfjs for
 * them would also bring layers, data and converter; these few are all that a transformer needs.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { GradConfig, Tensor, Tensor3D } from '@tensorflow/tfjs-core';

type Grad = (dy: Tensor, saved: Tensor[], attrs: Record<string, never>) => Record<string, () => Tensor>;

/**
 * Of what an op saves, by its place there, what only the gradient with respect to one input reads: nobody needs it when that
 * input is a constant.
 */
export const readFor: Readonly<Record<string, [saved: number, input: string]>> = {
  NnLinear: [0, 'weight'], // x: with a frozen weight, the largest part of what a layer would keep
};

/** Sums `dy` over the axes along which an operand of `shape` was broadcast. */
function unbroadcast(dy: Tensor, shape: number[]): Tensor {
  const axes = tf.backend_util.getReductionAxes(shape, dy.shape);
  return tf.reshape(axes.length > 0 ? tf.sum(dy, axes) : dy, shape);
}

function register(
  kernelName: string,
  inputsToSave: string[],
  gradFunc: Grad,
  outputsToSave: boolean[] = [],
): void {
  if (tf.getGradient(kernelName)) return; // a full tfjs in the same process already brought it
  tf.registerGradient({ kernelName, inputsToSave, outputsToSave, gradFunc } as unknown as GradConfig);
}

/** Shape of `dy` with the reduced axes put back as 1. */
function keptDims(inputShape: number[], axis: number | number[] | undefined): number[] {
  const axes = tf.util.parseAxisParam(axis as number[], inputShape);
  return inputShape.map((size, i) => (axes.includes(i) ? 1 : size));
}

function registerArithmetic(): void {
  // What is saved lives until the backward pass, so these save nothing: autodiff.ts brings dy into the inputs' shapes.
  register('Add', [], (dy) => ({ a: () => dy, b: () => dy }));
  register('Sub', [], (dy) => ({ a: () => dy, b: () => tf.neg(dy) }));
  register('Multiply', ['a', 'b'], (dy, [a, b]) => ({
    a: () => unbroadcast(tf.mul(dy, b), a.shape),
    b: () => unbroadcast(tf.mul(dy, a), b.shape),
  }));
  register('RealDiv', ['a', 'b'], (dy, [a, b]) => ({
    a: () => unbroadcast(tf.div(dy, b), a.shape),
    b: () => unbroadcast(tf.neg(tf.div(tf.mul(dy, a), tf.square(b))), b.shape),
  }));
  register('Neg', [], (dy) => ({ x: () => tf.neg(dy) }));
  register('Square', ['x'], (dy, [x]) => ({ x: () => tf.mul(dy, tf.mul(x, 2)) }));
  register('Sqrt', ['x'], (dy, [x]) => ({ x: () => tf.div(dy, tf.mul(tf.sqrt(x), 2)) }));
  register('Exp', [], (dy, [y]) => ({ x: () => tf.mul(dy, y) }), [true]);
  register('Log', ['x'], (dy, [x]) => ({ x: () => tf.div(dy, x) }));
}

function registerShapes(): void {
  register('Identity', [], (dy) => ({ x: () => tf.clone(dy) }));
  register('Cast', [], (dy) => ({ x: () => tf.clone(dy) }));
  register('Reshape', [], (dy) => ({ x: () => dy }));
  register('Transpose', [], (dy, _saved, attrs) => {
    const { perm } = attrs as unknown as { perm: number[] };
    return { x: () => tf.transpose(dy, tf.backend_util.getUndoAxesPermutation(perm)) };
  });
  register('Slice', ['x'], (dy, [x], attrs) => {
    const { begin, size } = attrs as unknown as { begin: number[]; size: number[] };
    const [starts, sizes] = tf.slice_util.parseSliceParams(x, begin, size);
    return {
      x: () =>
        tf.pad(
          dy,
          starts.map((start, i): [number, number] => [start, x.shape[i] - start - sizes[i]]),
        ),
    };
  });
  register('PadV2', ['x'], (dy, [x], attrs) => {
    const { paddings } = attrs as unknown as { paddings: [number, number][] };
    return {
      x: () =>
        tf.slice(
          dy,
          paddings.map(([before]) => before),
          x.shape,
        ),
    };
  });
  register('Tile', ['x'], (dy, [x], attrs) => {
    const { reps } = attrs as unknown as { reps: number[] };
    const split = x.shape.flatMap((size, i) => [reps[i], size]);
    return {
      x: () =>
        tf.sum(
          tf.reshape(dy, split),
          x.shape.map((_, i) => 2 * i),
        ),
    };
  });
}

function registerReductions(): void {
  register('Sum', ['x'], (dy, [x], attrs) => {
    const kept = keptDims(x.shape, (attrs as unknown as { axis?: number[] }).axis);
    return { x: () => tf.mul(tf.reshape(dy, kept), tf.onesLike(x)) };
  });
  register(
    'Max',
    ['x'],
    (dy, [x, y], attrs) => {
      const kept = keptDims(x.shape, (attrs as unknown as { reductionIndices?: number[] }).reductionIndices);
      const hits = () => tf.cast(tf.equal(x, tf.reshape(y, kept)), 'float32');
      return { x: () => tf.mul(tf.reshape(dy, kept), hits()) };
    },
    [true],
  );
}

/** Concat saves all its inputs, whose number is free. Split is its mirror image. */
function registerConcat(): void {
  register('SplitV', [], (dys, _saved, attrs) => {
    const { axis } = attrs as unknown as { axis: number };
    return { x: () => tf.concat(dys as unknown as Tensor[], axis) };
  });
  if (tf.getGradient('Concat')) return;
  tf.registerGradient({
    kernelName: 'Concat',
    saveAllInputs: true,
    gradFunc: (dy, saved, attrs) => {
      const axis = tf.util.parseAxisParam((attrs as unknown as { axis: number }).axis, saved[0].shape)[0];
      const sizes = saved.map((x) => x.shape[axis]);
      const part = (i: number) => () => {
        const begin = sizes.slice(0, i).reduce((sum, size) => sum + size, 0);
        return tf.slice(
          dy as Tensor,
          saved[i].shape.map((_, d) => (d === axis ? begin : 0)),
          saved[i].shape,
        );
      };
      return Object.fromEntries(saved.map((_, i) => [i, part(i)]));
    },
  });
}

function registerOwnKernels(): void {
  const run = (name: string, inputs: Record<string, Tensor>, attrs = {}) =>
    tf.engine().runKernel(name, inputs, attrs) as Tensor;
  register('NnLinear', ['x', 'weight'], (dy, [x, weight], { activation }) => {
    if (activation)
      throw new Error(`NnLinear has no gradient with an activation, got ${activation}; take both ops`);
    return {
      x: () => run('NnLinearGradInput', { dy, weight }),
      weight: () => run('NnLinearGradWeight', { dy, x }),
      bias: () => run('NnSumRows', { x: dy }),
      residual: () => dy,
    };
  });
  register(
    'NnLoraLinear',
    ['x', 'weight', 'lora_A', 'lora_B'],
    (dys, [x, weight, lora_A, lora_B, low], attrs) => {
      const dy = (dys as unknown as Tensor[])[0];
      return {
        x: () => run('NnLoraLinearGradInput', { dy, weight, lora_A, lora_B }, attrs),
        weight: () => run('NnLinearGradWeight', { dy, x }),
        bias: () => run('NnSumRows', { x: dy }),
        residual: () => dy,
        lora_A: () => run('NnLoraLinearGradA', { dy, x, lora_B }, attrs),
        lora_B: () => run('NnLoraLinearGradB', { dy, low }, attrs),
      };
    },
    [false, true],
  );
  register(
    'NnLayerNorm',
    ['x', 'weight'],
    (dys, [x, weight, mean, rstd]) => {
      const dy = (dys as unknown as Tensor[])[0];
      return {
        x: () => run('NnLayerNormGradInput', { dy, x, weight, mean, rstd }),
        weight: () => run('NnLayerNormGradWeight', { dy, x, mean, rstd }),
        bias: () => run('NnSumRows', { x: dy }),
      };
    },
    [false, true, true],
  );
  register('NnGelu', ['x'], (dy, [x]) => ({ x: () => run('NnGeluGrad', { dy, x }) }));
  register(
    'NnRelu',
    [],
    (dys, [positive]) => ({
      x: () => run('NnReluGrad', { dy: (dys as unknown as Tensor[])[0], positive }),
    }),
    [false, true],
  );
  register('NnGatherRows', ['x', 'indices'], (dy, [x, indices]) => ({
    x: () => run('NnScatterAddRows', { dy, indices }, { rows: x.shape[0] }),
  }));
  register(
    'NnCrossEntropy',
    ['logits', 'labels'],
    (dys, [logits, labels, lse], attrs) => ({
      logits: () =>
        run('NnCrossEntropyGrad', { logits, labels, lse, dloss: (dys as unknown as Tensor3D[])[0] }, attrs),
    }),
    [false, true],
  );
  register(
    'NnLinearCrossEntropy',
    ['x', 'weight', 'labels'],
    (dys, [x, weight, labels, lse], attrs) => {
      const inputs = { x, weight, labels, lse, dloss: (dys as unknown as Tensor[])[0] };
      return {
        x: () => run('NnLinearCrossEntropyGradInput', inputs, attrs),
        weight: () => run('NnLinearCrossEntropyGradWeight', inputs, attrs),
      };
    },
    [false, true],
  );
  register('NnDropout', [], (dy, _saved, attrs) => ({ x: () => run('NnDropout', { x: dy }, attrs) }));
}

let registered = false;

/** Registers every gradient once; called by `useBackend`. */
export function registerGradients(): void {
  if (registered) return;
  registered = true;
  registerArithmetic();
  registerShapes();
  registerReductions();
  registerConcat();
  registerOwnKernels();
}
