/** How kernels are called, how a backend provides them, and how a gradient is declared; all by the table in kernels.ts. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, TensorInfo } from '@tensorflow/tfjs-core';
import type { KernelAttrs, KernelInputs, KernelName, KernelOutputs } from './kernels';

type Given<T> = Record<string, T | T[] | undefined>;

/** Runs a kernel on the active backend. Optional inputs may be undefined. */
export function runKernel<K extends KernelName>(
  name: K,
  inputs: KernelInputs<K, Tensor>,
  attrs: KernelAttrs<K>,
): KernelOutputs<K, Tensor> {
  return tf.engine().runKernel<never>(name, pack(inputs as Given<Tensor>), attrs as tf.NamedAttrMap);
}

/** Under this key tfjs's map of single tensors carries the inputs of a kernel that takes lists. */
const WITH_LISTS = Symbol('inputs with lists');

/**
 * tfjs's form of the inputs: those that are there, elements of lists by number. Hundreds of kernels run per generated token, most
 * with all of their inputs and no list: then nothing is copied.
 */
function pack(inputs: Given<Tensor>): tf.NamedTensorMap {
  for (const name in inputs)
    if (inputs[name] === undefined || Array.isArray(inputs[name])) return flattened(inputs);
  return inputs as tf.NamedTensorMap;
}

function flattened(inputs: Given<Tensor>): tf.NamedTensorMap {
  const flat: tf.NamedTensorMap & { [WITH_LISTS]?: Given<Tensor> } = {};
  let next = 0;
  for (const name in inputs) {
    const x = inputs[name];
    if (Array.isArray(x)) {
      flat[WITH_LISTS] = inputs;
      for (const element of x) flat[next++] = element;
    } else if (x) flat[name] = x;
  }
  return flat;
}

/** The inverse of `pack`. */
function unpack(flat: tf.NamedTensorInfoMap & { [WITH_LISTS]?: Given<TensorInfo> }): Given<TensorInfo> {
  const given = flat[WITH_LISTS];
  if (!given) return flat;
  const inputs: Given<TensorInfo> = {};
  for (const name in given) inputs[name] = Array.isArray(given[name]) ? given[name] : flat[name];
  return inputs;
}

/** A backend's own kernel. What it returns is in the order of the table. */
export type Kernel<K extends KernelName, Backend> = (
  inputs: KernelInputs<K, TensorInfo>,
  attrs: KernelAttrs<K>,
  backend: Backend,
) => KernelOutputs<K, TensorInfo>;

/** Registers a backend's kernels, in place of any of the same name. */
export function registerKernels<Backend>(
  backendName: string,
  kernels: { [K in KernelName]?: Kernel<K, Backend> },
): void {
  for (const [name, run] of Object.entries(kernels) as [KernelName, AnyKernel][]) {
    if (tf.getKernel(name, backendName)) tf.unregisterKernel(name, backendName);
    registerKernel(backendName, name, run);
  }
}

/** A kernel of whatever name: its inputs are what the engine passes, Tensors. */
type AnyKernel = (inputs: never, attrs: never, backend: never) => TensorInfo | TensorInfo[];

/** Registers one kernel of the table, which the backend must not have yet. */
export function registerKernel(backendName: string, kernelName: KernelName, run: AnyKernel): void {
  tf.registerKernel({
    kernelName,
    backendName,
    kernelFunc: ({ inputs, attrs, backend }) =>
      run(unpack(inputs) as never, (attrs ?? {}) as never, backend as never),
  });
}

/** The composition of a kernel from plain tfjs ops. */
export type Reference<K extends KernelName> = (
  inputs: KernelInputs<K, Tensor>,
  attrs: KernelAttrs<K>,
) => KernelOutputs<K, Tensor>;

export type References = { [K in KernelName]: Reference<K> };

/** What a file of ops/ hands to `own-kernels.ts`. */
export interface KernelSet {
  references: Partial<References>;
  gradients: Gradient[];
}

/** A registered gradient, with what the tape wants to know of it. */
export interface Gradient extends tf.GradConfig {
  /** A saved tensor, by its place there, that only the gradient with respect to one input reads. */
  readFor?: [saved: number, input: string];
}

/** Gradients of a kernel's inputs; the tape calls those that it needs. */
export type InputGradients<K extends KernelName> = {
  [N in keyof KernelInputs<K, Tensor>]?: () => Tensor;
};

interface Saved<K extends KernelName, Name extends keyof KernelInputs<K, Tensor>> {
  /** Inputs that the gradient reads, none of them optional. */
  inputs: readonly Name[];
  /** Which of several outputs it reads. */
  outputs?: readonly boolean[];
  /** One of `inputs` that only the gradient with respect to one other reads: not kept when that one is a constant. */
  readFor?: [saved: Name, input: keyof KernelInputs<K, Tensor> & string];
}

/**
 * The gradient of a kernel through its first output; the others are made for the backward pass. `gradients` gets the first output's
 * gradient, the saved inputs, and the outputs, of which only the saved ones may be read.
 */
export function gradient<K extends KernelName, Name extends keyof KernelInputs<K, Tensor> & string>(
  kernelName: K,
  { inputs, outputs = [], readFor }: Saved<K, Name>,
  gradients: (
    dy: Tensor,
    saved: Pick<KernelInputs<K, Tensor>, Name>,
    outputs: KernelOutputs<K, Tensor>,
    attrs: KernelAttrs<K>,
  ) => InputGradients<K>,
): Gradient {
  const gradFunc = (dys: Tensor | Tensor[], tensors: Tensor[], attrs: unknown) => {
    const saved = Object.fromEntries(inputs.map((name, i) => [name, tensors[i]]));
    let next = inputs.length;
    const made = outputs.map((kept) => (kept ? tensors[next++] : undefined));
    const dy = Array.isArray(dys) ? dys[0] : dys;
    return gradients(dy, saved as never, made as never, attrs as never) as Record<string, () => Tensor>;
  };
  return {
    kernelName,
    inputsToSave: [...inputs],
    outputsToSave: [...outputs],
    gradFunc,
    readFor: readFor && [inputs.indexOf(readFor[0]), readFor[1]],
  };
}
