/** The linear layer, with and without a low-rank adapter. M rows, r LoRA rank. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, Tensor1D, Tensor2D } from '@tensorflow/tfjs-core';
import { isRecording } from '../autodiff';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { Activation, KernelAttrs, KernelInputs } from '../kernels';
import type { Key } from '../rng';
import { gelu, relu } from './activations';
import { checkWidth, composedGelu, dropoutAttrs, dropped, likeRows, matMul, rows } from './compose';
import { dropout } from './dropout';

/** A low-rank addition to a Linear (Hu et al. 2021): y += scaling · B(A(dropout(x))). Names and shapes as in PEFT. */
export interface LoraPart {
  lora_A: { weight: Tensor2D }; // [r, in]
  lora_B: { weight: Tensor2D; bias?: Tensor1D }; // [out, r], [out] with PEFT's lora_bias
  /** DoRA (Liu et al. 2024): the norm of each row of the adapted weight, trained separately from its direction. */
  lora_magnitude_vector?: Tensor1D; // [out]
  scaling: number;
  dropout: number;
}
export interface Linear {
  weight: Tensor2D; // [out, in]
  bias?: Tensor1D; // [out]
  lora?: LoraPart;
}

type Watcher = (weight: Tensor2D, x: Tensor) => Tensor2D | void;
let watcher: Watcher | undefined;

/**
 * Runs `f`, which is synchronous, and calls `watch` with the weight and the input of each linear layer before it is computed; of an
 * adapted layer, with the base's weight. If `watch` returns another weight, the layer is computed with that. It is not called for linear
 * layers that it computes itself.
 */
export function watchLinears<T>(watch: Watcher, f: () => T): T {
  watcher = watch;
  try {
    return f();
  } finally {
    watcher = undefined;
  }
}

/** Whether each linear layer must be computed on its own: for a backward pass, or for `watchLinears`. */
export function isObserved(): boolean {
  return watcher !== undefined || isRecording();
}

/** The weight to use for x. */
function watched(own: Tensor2D, x: Tensor): Tensor2D {
  const watch = watcher;
  if (!watch) return own;
  watcher = undefined;
  try {
    return watch(own, x) ?? own;
  } finally {
    watcher = watch;
  }
}

function project(x: Tensor, own: Tensor2D, bias?: Tensor1D, residual?: Tensor): Tensor {
  const weight = watched(own, x);
  if (residual) return runKernel('NnLinear', { x, weight, bias, residual }, {});
  return runKernel('NnLinear', bias ? { x, weight, bias } : { x, weight }, {});
}

/**
 * y = x·Wᵀ + b, plus the adapter if there is one. x [..., in] → [..., out].
 * The adapter's dropout acts only when `key` is given.
 */
export function linear<T extends Tensor>(p: Linear, x: T, key?: Key): T {
  checkWidth('linear', p.weight, x);
  return whole(p, x, key) as T;
}

/**
 * `linear(p, x)` of a layer that decides more than others, such as the output layer: in the precisions int8 and int4, only the weight is
 * rounded to 8 bits, x keeps at least 14. x [..., in] → [..., out].
 */
export function preciseLinear<T extends Tensor>(p: Linear, x: T): T {
  if (p.lora || p.bias) return linear(p, x);
  checkWidth('preciseLinear', p.weight, x);
  return runKernel('NnLinear', { x, weight: watched(p.weight, x) }, { preciseInput: true }) as T;
}

/** For training: the key of the adapter, and the dropout of the output before the residual is added. */
export interface ResidualOptions {
  key?: Key;
  dropout?: { rate: number; key: Key | undefined };
}

/** `residual + dropout(linear(p, x, key))`; without dropout, in the epilogue of the matmul. residual [..., out] → [..., out]. */
export function residualLinear<T extends Tensor>(p: Linear, x: T, residual: T, o: ResidualOptions = {}): T {
  checkWidth('residualLinear', p.weight, x);
  const shape = [...x.shape.slice(0, -1), p.weight.shape[0]];
  if (residual.shape.join() !== shape.join())
    throw new Error(`residualLinear: expected a residual [${shape}], found [${residual.shape}]`);
  const { rate, key } = o.dropout ?? { rate: 0 };
  const drops = key !== undefined && rate !== 0;
  return drops
    ? tf.add(residual, dropout(linear(p, x, o.key), rate, key))
    : (whole(p, x, o.key, residual) as T);
}

function whole(p: Linear, x: Tensor, key?: Key, residual?: Tensor): Tensor {
  if (!p.lora) return project(x, p.weight, p.bias, residual);
  const { lora_magnitude_vector, lora_B } = p.lora;
  if (!lora_magnitude_vector && !lora_B.bias) return adapted(p, p.lora, x, key, residual);
  const y = inParts(p, p.lora, x, key);
  return residual ? tf.add(y, residual) : y;
}

/**
 * `activation(linear(p, x, key))`, in the epilogue of the matmul if no backward pass is recorded. x [..., in] → [..., out].
 */
export function activatedLinear<T extends Tensor>(activation: Activation, p: Linear, x: T, key?: Key): T {
  if (p.lora || isRecording()) return activations[activation](linear(p, x, key));
  checkWidth('activatedLinear', p.weight, x);
  const { bias } = p;
  const weight = watched(p.weight, x);
  return runKernel('NnLinear', { x, weight, bias }, { activation }) as T;
}

const activations = { gelu, relu };

/** The layer, its adapter and the residual in one kernel. */
function adapted(
  { weight: own, bias }: Linear,
  lora: LoraPart,
  x: Tensor,
  key: Key | undefined,
  residual: Tensor | undefined,
): Tensor {
  const { scaling } = lora;
  const weight = watched(own, x);
  const inputs = { x, weight, bias, residual, lora_A: lora.lora_A.weight, lora_B: lora.lora_B.weight };
  return runKernel('NnLoraLinear', inputs, { scaling, ...dropoutAttrs(lora.dropout, key) })[0];
}

/** The same step by step, for adapters with a magnitude (DoRA) or a bias, without residual. */
function inParts(p: Linear, lora: LoraPart, x: Tensor, key: Key | undefined): Tensor {
  const y = project(x, p.weight, p.bias); // [..., out]
  const dropped = dropout(x, lora.dropout, key);
  const low = project(dropped, lora.lora_A.weight); // [..., r]
  const delta = tf.mul(project(low, lora.lora_B.weight, lora.lora_B.bias), lora.scaling); // [..., out]
  return lora.lora_magnitude_vector
    ? dora(p, y, delta, dropped === x ? undefined : dropped)
    : tf.add(y, delta);
}

/**
 * The output of DoRA from y of the base layer and delta of the adapter (DoraLinearLayer of PEFT): y + (m/n − 1)·Wx + (m/n)·delta, with
 * magnitudes m and row norms n. With dropout, Wx uses x after dropout, as in PEFT.
 */
function dora(p: Linear, y: Tensor, delta: Tensor, dropped: Tensor | undefined): Tensor {
  const { lora_magnitude_vector: magnitude } = p.lora!;
  const ratio = tf.div(magnitude!, doraNorm(p.weight, p.lora!)); // [out]
  const plain = dropped ? project(dropped, p.weight) : p.bias ? tf.sub(y, p.bias) : y; // [M, out], no bias
  return tf.add(tf.add(y, tf.mul(tf.sub(ratio, 1), plain)), tf.mul(ratio, delta));
}

/** Norms of the rows of W + scaling·B·A, [out]. Constant in the gradient, as in the paper (section 4.3) and PEFT. */
export function doraNorm(weight: Tensor2D, { lora_A, lora_B, scaling }: LoraPart): Tensor1D {
  const norm = tf.customGrad(() => {
    const change = project(tf.transpose(lora_A.weight), lora_B.weight); // [in, out], (B·A)ᵀ
    const adapted = tf.add(weight, tf.mul(tf.transpose(change), scaling)); // [out, in]
    return { value: tf.sqrt(tf.sum(tf.square(adapted), 1)), gradFunc: () => [] };
  });
  return norm() as Tensor1D;
}

type LoraAttrs = KernelAttrs<'NnLoraLinear'>;

function composed(
  { x, weight, bias, residual }: KernelInputs<'NnLinear', Tensor>,
  { activation }: KernelAttrs<'NnLinear'> = {},
): Tensor {
  let y = likeRows(matMul(rows(x), weight, false, true), x);
  if (bias) y = tf.add(y, bias);
  if (activation) y = activation === 'gelu' ? composedGelu(y) : tf.relu(y);
  return residual ? tf.add(y, residual) : y;
}

function loraLinear(inputs: KernelInputs<'NnLoraLinear', Tensor>, a: LoraAttrs): [Tensor, Tensor] {
  const { x, lora_A, lora_B } = inputs;
  const low = composed({ x: dropped(x, a), weight: lora_A });
  return [tf.add(composed(inputs), composed({ x: tf.mul(low, a.scaling), weight: lora_B })), low];
}

function loraLinearGradInput(
  { dy, weight, lora_A, dlow }: KernelInputs<'NnLoraLinearGradInput', Tensor>,
  a: LoraAttrs,
): Tensor {
  return likeRows(tf.add(matMul(rows(dy), weight), dropped(matMul(rows(dlow), lora_A), a)), dy);
}

export default {
  references: {
    NnLinear: composed,
    NnLinearGradInput: ({ dy, weight }) => likeRows(matMul(rows(dy), weight), dy),
    NnLinearGradWeight: ({ dy, x }) => matMul(rows(dy), rows(x), true, false),
    NnLoraLinear: loraLinear,
    NnLoraLinearGradLow: ({ dy, lora_B }, { scaling }) =>
      likeRows(tf.mul(matMul(rows(dy), lora_B), scaling), dy),
    NnLoraLinearGradInput: loraLinearGradInput,
    NnLoraLinearGradA: ({ x, dlow }, a) => matMul(rows(dlow), rows(dropped(x, a)), true, false),
    NnLoraLinearGradB: ({ dy, low }, { scaling }) =>
      matMul(rows(dy), rows(tf.mul(low, scaling)), true, false),
    NnSumRows: ({ x }) => tf.sum(rows(x), 0),
  },
  gradients: [
    // x is the largest saved tensor; with a frozen weight it is not needed.
    gradient(
      'NnLinear',
      { inputs: ['x', 'weight'], readFor: ['x', 'weight'] },
      (dy, { x, weight }, _y, { activation }) => {
        if (activation)
          throw new Error(`NnLinear: expected no activation where a gradient is taken, found ${activation}`);
        return {
          x: () => runKernel('NnLinearGradInput', { dy, weight }, {}),
          weight: () => runKernel('NnLinearGradWeight', { dy, x }, {}),
          bias: () => runKernel('NnSumRows', { x: dy }, {}),
          residual: () => dy,
        };
      },
    ),
    gradient(
      'NnLoraLinear',
      { inputs: ['x', 'weight', 'lora_A', 'lora_B'], outputs: [false, true] },
      (dy, { x, weight, lora_A, lora_B }, [, low], attrs) => {
        let made: Tensor | undefined;
        const dlow = () => (made ??= runKernel('NnLoraLinearGradLow', { dy, lora_B }, attrs));
        return {
          x: () => runKernel('NnLoraLinearGradInput', { dy, weight, lora_A, dlow: dlow() }, attrs),
          weight: () => runKernel('NnLinearGradWeight', { dy, x }, {}),
          bias: () => runKernel('NnSumRows', { x: dy }, {}),
          residual: () => dy,
          lora_A: () => runKernel('NnLoraLinearGradA', { x, dlow: dlow() }, attrs),
          lora_B: () => runKernel('NnLoraLinearGradB', { dy, low }, attrs),
        };
      },
    ),
  ],
} satisfies KernelSet;
