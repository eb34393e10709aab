/** Checks of what kernels are given, and the shapes that they compute with. */
import type { KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import { sizeOf } from './backend';

/** @throws unless `tensor` has this shape; the addon itself sees only lengths */
export function expectShape(kernel: KernelName, what: string, tensor: TensorInfo, shape: number[]): void {
  if (tensor.shape.length !== shape.length || shape.some((n, axis) => tensor.shape[axis] !== n))
    throw new Error(`${kernel}: ${what} must have shape [${shape}], found [${tensor.shape}]`);
}

export function matrix(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length !== 2) throw new Error(`${kernel}: ${what} must have rank 2, found shape [${shape}]`);
  return [shape[0]!, shape[1]!];
}

/** [..., N] as [M, N]. */
export function rowsOf(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length < 1) throw new Error(`${kernel}: ${what} must have rank 1 or more, found a scalar`);
  return [sizeOf(shape.slice(0, -1)), shape[shape.length - 1]!];
}
