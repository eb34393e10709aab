/** Cross-entropy of logits, and of a linear layer without holding its logits. M rows, D width, V vocabulary. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor, Tensor2D } from '@tensorflow/tfjs-core';
import { gradient, runKernel } from '../kernel-door';
import type { KernelSet } from '../kernel-door';
import type { KernelAttrs, KernelInputs } from '../kernels';
import { checkWidth, matMul } from './compose';
import { linear } from './linear';
import type { Linear } from './linear';

/**
 * Mean cross-entropy over the rows whose label is not negative. logits [M, V], labels [M] → scalar.
 * @throws Error if a label is outside the vocabulary or no row is labelled
 */
export function crossEntropy(logits: Tensor2D, labels: Int32Array, labelSmoothing = 0): Scalar {
  checkLabels('crossEntropy', 'logits', labels, logits.shape);
  const inputs = { logits, labels: tf.tensor1d(labels, 'int32') };
  return runKernel('NnCrossEntropy', inputs, { labelSmoothing })[0] as Scalar;
}

/**
 * `crossEntropy(linear(p, x), labels)` without holding the logits [M, V] in memory; the backward pass recomputes them piece by piece.
 * If `p` has a bias or an adapter, the logits are held. x [M, D], labels [M] → scalar.
 * @throws like crossEntropy
 */
export function linearCrossEntropy(p: Linear, x: Tensor2D, labels: Int32Array, labelSmoothing = 0): Scalar {
  if (p.bias || p.lora) return crossEntropy(linear(p, x), labels, labelSmoothing);
  checkLabels('linearCrossEntropy', 'x', labels, [x.shape[0], p.weight.shape[0]]);
  checkWidth('linearCrossEntropy', p.weight, x);
  const inputs = { x, weight: p.weight, labels: tf.tensor1d(labels, 'int32') };
  return runKernel('NnLinearCrossEntropy', inputs, { labelSmoothing })[0] as Scalar;
}

function checkLabels(op: string, what: string, labels: Int32Array, [M, V]: readonly number[]): void {
  if (labels.length !== M)
    throw new Error(`${op}: expected ${M} labels, one for each row of ${what}, found ${labels.length}`);
  if (!labels.some((label) => label >= 0))
    throw new Error(`${op}: expected at least one labelled row, found none`);
  const wrong = labels.find((label) => label >= V);
  if (wrong !== undefined) throw new RangeError(`${op}: label ${wrong} is outside the vocabulary of ${V}`);
}

type Attrs = KernelAttrs<'NnCrossEntropy'>;

/** 1 for labelled rows and 0 for others [M, 1], and 1 at the label of each row and 0 elsewhere [M, V]. */
function targets(logits: Tensor, labels: Tensor): { counted: Tensor; onehot: Tensor } {
  const counted = tf.cast(tf.greaterEqual(labels, 0), 'float32');
  const onehot = tf.oneHot(tf.cast(tf.maximum(labels, 0), 'int32'), logits.shape[1] as number);
  return { counted: tf.expandDims(counted, 1), onehot: tf.cast(onehot, 'float32') };
}

function composed(
  { logits, labels }: KernelInputs<'NnCrossEntropy', Tensor>,
  { labelSmoothing: s }: Attrs,
): [Tensor, Tensor] {
  const { counted, onehot } = targets(logits, labels);
  const lse = tf.logSumExp(logits, 1, true);
  const surprise = tf.sub(lse, logits); // −log softmax
  const ofLabel = tf.sum(tf.mul(onehot, surprise), 1, true);
  // Two sums: in one, the many small terms would lose digits beside the large one.
  const rows = s === 0 ? ofLabel : tf.add(tf.mul(ofLabel, 1 - s), tf.mul(tf.mean(surprise, 1, true), s));
  return [tf.div(tf.sum(tf.mul(rows, counted)), tf.sum(counted)), tf.squeeze(lse, [1])];
}

function composedGrad(
  { logits, labels, lse, dloss }: KernelInputs<'NnCrossEntropyGrad', Tensor>,
  { labelSmoothing: s }: Attrs,
): Tensor {
  const { counted, onehot } = targets(logits, labels);
  const target = tf.add(tf.mul(onehot, 1 - s), s / (logits.shape[1] as number));
  const probs = tf.exp(tf.sub(logits, tf.expandDims(lse, 1)));
  return tf.mul(tf.mul(tf.sub(probs, target), counted), tf.div(dloss, tf.sum(counted)));
}

/** Gradient of the logits [M, V], which `linearCrossEntropy` did not keep. */
function logitsGrad(
  { x, weight, labels, lse, dloss }: KernelInputs<'NnLinearCrossEntropyGradInput', Tensor>,
  attrs: Attrs,
): Tensor {
  return composedGrad({ logits: matMul(x, weight, false, true), labels, lse, dloss }, attrs);
}

export default {
  references: {
    NnCrossEntropy: composed,
    NnCrossEntropyGrad: composedGrad,
    NnLinearCrossEntropy: ({ x, weight, labels }, attrs) =>
      composed({ logits: matMul(x, weight, false, true), labels }, attrs),
    NnLinearCrossEntropyGradInput: (inputs, attrs) => matMul(logitsGrad(inputs, attrs), inputs.weight),
    NnLinearCrossEntropyGradWeight: (inputs, attrs) =>
      matMul(logitsGrad(inputs, attrs), inputs.x, true, false),
  },
  gradients: [
    gradient(
      'NnCrossEntropy',
      { inputs: ['logits', 'labels'], outputs: [false, true] },
      (dloss, { logits, labels }, [, lse], attrs) => ({
        logits: () => runKernel('NnCrossEntropyGrad', { logits, labels, lse, dloss }, attrs),
      }),
    ),
    gradient(
      'NnLinearCrossEntropy',
      { inputs: ['x', 'weight', 'labels'], outputs: [false, true] },
      (dloss, saved, [, lse], attrs) => ({
        x: () => runKernel('NnLinearCrossEntropyGradInput', { ...saved, lse, dloss }, attrs),
        weight: () => runKernel('NnLinearCrossEntropyGradWeight', { ...saved, lse, dloss }, attrs),
      }),
    ),
  ],
} satisfies KernelSet;
