import type { Kernel, KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';

/** A kernel of nn's table. */
export type NnKernel<K extends KernelName> = Kernel<K, NativeBackend>;

/** A tfjs kernel by its own inputs and attributes, as tfjs hands them over. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- every kernel has its own inputs and attributes
export type NativeKernel = (inputs: any, attrs: any, backend: NativeBackend) => TensorInfo | TensorInfo[];
