import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';

/** A kernel by its own inputs and attributes, as tfjs hands them over. */
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- every kernel has its own inputs and attributes
export type NativeKernel = (inputs: any, attrs: any, backend: NativeBackend) => TensorInfo | TensorInfo[];
