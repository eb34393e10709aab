/**
 * Gradients of the tfjs kernels that our ops use. The Node build of tfjs-core registers none, and the complete tfjs would also load
 * layers, data and converter.
 */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor } from '@tensorflow/tfjs-core';
import { gradients } from './own-kernels';

/** Sums `dy` over the axes along which an operand of `shape` was broadcast. */
function unbroadcast(dy: Tensor, shape: number[]): Tensor {
  const axes = tf.backend_util.getReductionAxes(shape, dy.shape);
  return tf.reshape(axes.length > 0 ? tf.sum(dy, axes) : dy, shape);
}

/** A gradient function with the attributes that tfjs declares for the kernel. */
type GradientOf<Attrs> = (dy: Tensor, saved: Tensor[], attrs: Attrs) => Record<string, () => Tensor>;

function register<Attrs>(
  kernelName: string,
  saved: Pick<tf.GradConfig, 'inputsToSave' | 'outputsToSave' | 'saveAllInputs'>,
  gradFunc: GradientOf<Attrs>,
): void {
  if (tf.getGradient(kernelName)) return; // already registered by a complete tfjs in this process
  tf.registerGradient({
    kernelName,
    ...saved,
    gradFunc: (dy, tensors, attrs) => gradFunc(dy as Tensor, tensors, attrs as never),
  });
}

/** Shape of `dy` with the reduced axes put back as 1. */
function keptDims(inputShape: number[], axis: number | number[] | undefined): number[] {
  const axes = tf.util.parseAxisParam(axis as number[], inputShape); // none: all of them
  return inputShape.map((size, i) => (axes.includes(i) ? 1 : size));
}

function registerArithmetic(): void {
  // These save nothing, to keep memory free until the backward pass; autodiff.ts brings dy to the shapes of the inputs.
  register('Add', {}, (dy) => ({ a: () => dy, b: () => dy }));
  register('Sub', {}, (dy) => ({ a: () => dy, b: () => tf.neg(dy) }));
  register('Multiply', { inputsToSave: ['a', 'b'] }, (dy, [a, b]) => ({
    a: () => unbroadcast(tf.mul(dy, b), a.shape),
    b: () => unbroadcast(tf.mul(dy, a), b.shape),
  }));
  register('RealDiv', { inputsToSave: ['a', 'b'] }, (dy, [a, b]) => ({
    a: () => unbroadcast(tf.div(dy, b), a.shape),
    b: () => unbroadcast(tf.neg(tf.div(tf.mul(dy, a), tf.square(b))), b.shape),
  }));
  register('Sqrt', { inputsToSave: ['x'] }, (dy, [x]) => ({ x: () => tf.div(dy, tf.mul(tf.sqrt(x), 2)) }));
  register('Exp', { outputsToSave: [true] }, (dy, [y]) => ({ x: () => tf.mul(dy, y) }));
  register('Log', { inputsToSave: ['x'] }, (dy, [x]) => ({ x: () => tf.div(dy, x) }));
}

function registerShapes(): void {
  register('Identity', {}, (dy) => ({ x: () => tf.clone(dy) }));
  register('Cast', {}, (dy) => ({ x: () => tf.clone(dy) }));
  register('Reshape', {}, (dy) => ({ x: () => dy }));
  register('Transpose', {}, (dy, _saved, { perm }: tf.TransposeAttrs) => {
    return { x: () => tf.transpose(dy, tf.backend_util.getUndoAxesPermutation(perm)) };
  });
  register('Slice', { inputsToSave: ['x'] }, (dy, [x], { begin, size }: tf.SliceAttrs) => {
    const [starts, sizes] = tf.slice_util.parseSliceParams(x, begin, size);
    return {
      x: () =>
        tf.pad(
          dy,
          starts.map((start, i): [number, number] => [start, x.shape[i] - start - sizes[i]]),
        ),
    };
  });
  register('Tile', { inputsToSave: ['x'] }, (dy, [x], { reps }: tf.TileAttrs) => {
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
  register('Sum', { inputsToSave: ['x'] }, (dy, [x], { axis }: tf.SumAttrs) => {
    const kept = keptDims(x.shape, axis);
    return { x: () => tf.mul(tf.reshape(dy, kept), tf.onesLike(x)) };
  });
  register(
    'Max',
    { inputsToSave: ['x'], outputsToSave: [true] },
    (dy, [x, y], { reductionIndices }: tf.MaxAttrs) => {
      const kept = keptDims(x.shape, reductionIndices);
      const hits = () => tf.cast(tf.equal(x, tf.reshape(y, kept)), 'float32');
      return { x: () => tf.mul(tf.reshape(dy, kept), hits()) };
    },
  );
}

/** Concat saves all its inputs, of any number. Split is its inverse, with a list of gradients. */
function registerConcat(): void {
  register('SplitV', {}, (dys: Tensor | Tensor[], _saved, { axis }: tf.SplitVAttrs) => ({
    x: () => tf.concat([dys].flat(), axis),
  }));
  register('Concat', { saveAllInputs: true }, (dy, saved, attrs: tf.ConcatAttrs) => {
    const axis = tf.util.parseAxisParam(attrs.axis, saved[0].shape)[0];
    const sizes = saved.map((x) => x.shape[axis]);
    const part = (i: number) => () => {
      const begin = sizes.slice(0, i).reduce((sum, size) => sum + size, 0);
      return tf.slice(
        dy,
        saved[i].shape.map((_, d) => (d === axis ? begin : 0)),
        saved[i].shape,
      );
    };
    return Object.fromEntries(saved.map((_, i) => [i, part(i)]));
  });
}

let registered = false;

/** Registers every gradient once; called when a backend starts. */
export function registerGradients(): void {
  if (registered) return;
  registered = true;
  registerArithmetic();
  registerShapes();
  registerReductions();
  registerConcat();
  for (const config of gradients) tf.registerGradient(config);
}
