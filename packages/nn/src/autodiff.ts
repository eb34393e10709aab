/** Reverse-mode gradients on tfjs's tape. Only this file uses the internal state of the engine. */
import * as tf from '@tensorflow/tfjs-core';
import type { Scalar, Tensor } from '@tensorflow/tfjs-core';
import type { Gradient } from './kernel-door';
import { flatten, trainableLeaves } from './tree';

/** The engine's record of one op. */
interface TapeNode {
  kernelName: string;
  inputs: tf.NamedTensorMap;
  outputs: Tensor[];
  saved?: Tensor[];
  gradient?: (dys: (Tensor | undefined)[]) => Record<string, () => Tensor>;
}

/** Records the ops that depend on `xs`, and frees saved tensors that the backward pass will not read. */
class Tape {
  readonly nodes: TapeNode[] = [];
  /** Ids of the tensors that depend on `xs`. */
  readonly reached: Set<number>;

  constructor(xs: Tensor[]) {
    this.reached = new Set(xs.map(({ id }) => id));
  }

  /** The engine calls this after every op. */
  push(node: TapeNode): void {
    if (!Object.values(node.inputs).some(({ id }) => this.reached.has(id))) return free(node.saved);
    for (const { id } of node.outputs) this.reached.add(id);
    this.nodes.push(node);
    const readFor = (tf.getGradient(node.kernelName) as Gradient | undefined)?.readFor;
    if (readFor && !this.reached.has(node.inputs[readFor[1]].id)) node.saved![readFor[0]].dispose();
  }
}

/**
 * Unlike tfjs's own `gradients`, frees each stored activation and gradient as soon as it is used, so that memory is highest at the end
 * of the forward pass. May be called in a backward pass.
 */
function gradients(f: () => Tensor, xs: Tensor[], dy?: Tensor): { value: Tensor; grads: Tensor[] } {
  const tape = new Tape(xs);
  const outer = differentiated;
  differentiated = new Set(xs);
  try {
    const value = recorded(f, tape);
    differentiated = outer;
    const grads = tf.tidy(() => backward(tape, value, xs, dy));
    return { value, grads };
  } finally {
    differentiated = outer;
    for (const node of tape.nodes) free(node.saved);
  }
}

/** The tensors that the current forward pass is differentiated with respect to. */
let differentiated: ReadonlySet<Tensor> = new Set();

function recorded(f: () => Tensor, tape: Tape): Tensor {
  const { state } = tf.engine();
  if (state.gradientDepth > 0) throw new Error('gradients of gradients are not supported');
  const outer = state.activeTape;
  state.activeTape = tape as unknown as typeof outer;
  state.gradientDepth++;
  try {
    return tf.tidy(f);
  } finally {
    state.gradientDepth--;
    state.activeTape = outer;
  }
}

/** Whether ops are currently recorded for a backward pass. */
export function isRecording(): boolean {
  const { gradientDepth, kernelDepth } = tf.engine().state;
  return gradientDepth > 0 && kernelDepth === 0;
}

/** Bytes that the tape being recorded keeps for the backward pass, each buffer once; those of `held` belong to others. */
export function recordedBytes(held: Iterable<Tensor>): number {
  if (!isRecording()) return 0;
  const { nodes } = tf.engine().state.activeTape as unknown as Tape;
  const kept = new Map(
    nodes.flatMap(({ saved = [] }) => saved.filter((x) => !x.isDisposed).map((x) => [x.dataId, x])),
  );
  for (const { dataId } of held) kept.delete(dataId);
  return [...kept.values()].reduce((sum, { size, dtype }) => sum + size * tf.util.bytesPerElement(dtype), 0);
}

/** Whether the backward pass of the current forward pass will reach `x`. */
export function isReached(x: Tensor): boolean {
  return isRecording() && (tf.engine().state.activeTape as unknown as Tape).reached.has(x.id);
}

function backward(tape: Tape, value: Tensor, xs: Tensor[], dy?: Tensor): Tensor[] {
  const leaves = new Set(xs.map(({ id }) => id));
  const grads = new Map([[value.id, dy ? tf.clone(dy) : tf.onesLike(value)]]);
  for (const node of tape.nodes.reverse()) {
    const dys = node.outputs.map(({ id }) => grads.get(id));
    if (dys.some((known) => known !== undefined))
      for (const [id, dx] of inputGradients(node, dys, tape.reached)) {
        const sofar = grads.get(id);
        grads.set(id, sofar ? tf.add(sofar, dx) : dx);
        if (sofar) free([sofar, dx]);
      }
    free(node.saved);
    for (const { id } of node.outputs) {
      if (leaves.has(id)) continue;
      grads.get(id)?.dispose();
      grads.delete(id);
    }
  }
  return xs.map((x) => grads.get(x.id) ?? tf.zerosLike(x));
}

/** Gradients of the node with respect to the inputs that need one, by tensor id. Each is a separate tensor. */
function inputGradients(
  node: TapeNode,
  dys: (Tensor | undefined)[],
  reached: ReadonlySet<number>,
): [id: number, dx: Tensor][] {
  const { gradient, inputs, kernelName } = node;
  if (!gradient) throw new Error(`${kernelName} has no gradient, but its output depends on a trained tensor`);
  const wanted = Object.entries(inputs).filter(([, { id }]) => reached.has(id));
  // The engine would make zeros for the outputs without a gradient, as large as these outputs.
  const { ofFirst } = (tf.getGradient(kernelName) ?? {}) as Partial<Gradient>;
  const made = tf.tidy(() => {
    const functions = gradient(ofFirst && dys[0] ? dys.map(() => dys[0]) : dys);
    return wanted.map(([name, x]) => {
      const f = functions[name];
      if (!f) throw new Error(`${kernelName} has no gradient with respect to its input ${name}`);
      return likeInput(f(), x.shape);
    });
  });
  return wanted.map(([, { id }], i) => [id, made[i]]);
}

/** Brings dx to the shape of the input, since gradient functions may leave a broadcast or another shape. */
function likeInput(dx: Tensor, shape: number[]): Tensor {
  const size = tf.util.sizeFromShape(shape);
  return tf.reshape(
    dx.size === size ? dx : tf.sum(dx, tf.backend_util.getReductionAxes(shape, dx.shape)),
    shape,
  );
}

function free(tensors: Tensor[] | undefined): void {
  for (const tensor of tensors ?? []) tensor.dispose();
}

/**
 * Value of the scalar function `f` and its gradients with respect to `xs`, in their order.
 * An x that `f` does not use gets zeros.
 */
export function valueAndGrads(f: () => Scalar, xs: Tensor[]): { value: Scalar; grads: Tensor[] } {
  if (xs.length === 0) throw new Error('valueAndGrads: expected at least one trainable tensor, found none');
  return gradients(f, xs) as { value: Scalar; grads: Tensor[] };
}

/**
 * `f(...xs)` without storing intermediate results: the backward pass runs `f` again (Chen et al. 2016). Gradients are computed for those xs
 * that depend on trained tensors, and the Variables of `params`, which must contain every Variable that `f` uses. Other tensors in the closure of `f` must not be
 * disposed of before the backward pass: make small ones (masks) inside `f`, and pass activations as xs.
 */
export function checkpoint<X extends Tensor[], Y extends Tensor>(
  f: (...xs: X) => Y,
  xs: [...X],
  params: object,
): Y {
  const inputs: Tensor[] = [...xs, ...trainableLeaves(params).values()];
  const reached = inputs.map((x, i) => i >= xs.length || isReached(x));
  const op = tf.customGrad((...args: unknown[]) => {
    const save = args[args.length - 1] as tf.GradSaveFunc;
    const given = args.slice(0, xs.length) as X;
    save(given);
    const gradFunc = (dy: Tensor, saved: Tensor[]) => {
      const given = [...saved, ...inputs.slice(xs.length)];
      const wanted = given.filter((_, i) => reached[i]);
      const { grads } = gradients(() => f(...(saved as X)), wanted, dy);
      return given.map((_, i) => (reached[i] ? grads.shift()! : tf.scalar(0))); // tfjs wants one for each input
    };
    return { value: tf.tidy(() => f(...given)), gradFunc };
  });
  return op(...inputs) as Y;
}

/**
 * Runs `f`, a part of a model with the parameters `params`. If none of them needs a gradient, the result is a constant: nothing is
 * recorded for the backward pass, and intermediate results are freed. The input of the part must not depend on trained parameters.
 */
export function part<T extends tf.TensorContainer>(params: object, f: () => T): T {
  if ([...flatten(params).values()].some((leaf) => differentiated.has(leaf))) return f();
  const { state } = tf.engine();
  state.kernelDepth++; // the engine records kernels that are called by tape level 0 only
  try {
    return tf.tidy(f);
  } finally {
    state.kernelDepth--;
  }
}
