/** Checks of the shapes of kernel inputs. */
import type { KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import { sizeOf } from './backend';

/** @throws Error unless `tensor` has this shape; the addon itself checks only lengths */
export function expectShape(kernel: KernelName, what: string, tensor: TensorInfo, shape: number[]): void {
  if (tensor.shape.length !== shape.length || shape.some((n, axis) => tensor.shape[axis] !== n))
    throw new Error(`${kernel}: expected ${what} of shape [${shape}], found [${tensor.shape}]`);
}

export function matrix(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length !== 2) throw new Error(`${kernel}: expected ${what} of rank 2, found shape [${shape}]`);
  return [shape[0]!, shape[1]!];
}

/** [..., N] as [M, N]. */
export function rowsOf(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length < 1) throw new Error(`${kernel}: expected ${what} of rank 1 or more, found a scalar`);
  return [sizeOf(shape.slice(0, -1)), shape[shape.length - 1]!];
}
