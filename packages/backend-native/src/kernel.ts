import type { Kernel, KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';

/** A kernel of the table in @blip2/nn. */
export type NnKernel<K extends KernelName> = Kernel<K, NativeBackend>;

/** A tfjs kernel, called with the inputs and attributes of tfjs. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- every kernel has its own inputs and attributes
export type NativeKernel = (inputs: any, attrs: any, backend: NativeBackend) => TensorInfo | TensorInfo[];
