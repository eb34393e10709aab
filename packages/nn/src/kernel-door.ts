/** Calling and registering the kernels of kernels.ts, and declaring their gradients. */
import * as tf from '@tensorflow/tfjs-core';
import type { Tensor, TensorInfo } from '@tensorflow/tfjs-core';
import { isRecording } from './autodiff';
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

/**
 * Key of the original inputs of a kernel with lists, in tfjs's map of single tensors. Global, because an app may have this package twice:
 * in its bundle, and beside a backend that is left out of it.
 */
const WITH_LISTS: unique symbol = Symbol.for('@blip2/nn: inputs with lists');

/**
 * The inputs in the form of tfjs: without undefined ones, and list elements by number, which only the tape reads. Copies nothing where
 * that is possible: hundreds of kernels run per generated token.
 */
function pack(inputs: Given<Tensor>): tf.NamedTensorMap {
  let lists = false;
  let whole = true;
  for (const name in inputs) {
    lists ||= Array.isArray(inputs[name]);
    whole &&= inputs[name] !== undefined;
  }
  if (lists && !isRecording()) return { [WITH_LISTS]: inputs } as tf.NamedTensorMap;
  return lists || !whole ? flattened(inputs) : (inputs as tf.NamedTensorMap);
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
  return flat[WITH_LISTS] ?? flat;
}

/** A kernel of a backend. Its outputs are in the order of the table. */
export type Kernel<K extends KernelName, Backend> = (
  inputs: KernelInputs<K, TensorInfo>,
  attrs: KernelAttrs<K>,
  backend: Backend,
) => KernelOutputs<K, TensorInfo>;

/** Registers kernels of a backend, replacing those of the same name. */
export function registerKernels<Backend>(
  backendName: string,
  kernels: { [K in KernelName]?: Kernel<K, Backend> },
): void {
  for (const [name, run] of Object.entries(kernels) as [KernelName, AnyKernel][]) {
    if (tf.getKernel(name, backendName)) tf.unregisterKernel(name, backendName);
    registerKernel(backendName, name, run);
  }
}

/** Any kernel; the engine passes Tensors as inputs. */
type AnyKernel = (inputs: never, attrs: never, backend: never) => TensorInfo | TensorInfo[];

/** Registers one kernel of the table that the backend does not have yet. */
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

/** The default export of each file of ops/, for `own-kernels.ts`. */
export interface KernelSet {
  references: Partial<References>;
  gradients: Gradient[];
}

/** A registered gradient, with hints for the tape. */
export interface Gradient extends tf.GradConfig {
  /** It reads only the gradient of the first output. */
  ofFirst: boolean;
  /** Index of a saved tensor that only the gradient of one input reads. */
  readFor?: [saved: number, input: string];
}

/** Gradients of the inputs of a kernel; the tape calls those that it needs. */
export type InputGradients<K extends KernelName> = {
  [N in keyof KernelInputs<K, Tensor>]?: () => Tensor;
};

interface Saved<K extends KernelName, Name extends keyof KernelInputs<K, Tensor>> {
  /** Inputs that the gradient reads, none of them optional. */
  inputs: readonly Name[];
  /** Which of the outputs it reads, if there are several. */
  outputs?: readonly boolean[];
  /** One of `inputs` that only the gradient of one other input reads; it is not kept if that input is constant. */
  readFor?: [saved: Name, input: keyof KernelInputs<K, Tensor> & string];
}

/**
 * The gradient of a kernel with respect to its first output; the other outputs serve only the backward pass. `gradients` gets the
 * gradient of the first output, the saved inputs and the outputs, of which only the saved ones are defined.
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
    ofFirst: true,
    readFor: readFor && [inputs.indexOf(readFor[0]), readFor[1]],
  };
}
