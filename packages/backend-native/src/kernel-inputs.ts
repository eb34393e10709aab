// What the kernels of @blip2/nn's table have in common: their types, and checks of what they are given.
import type { KernelName, KernelTable } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import { type NativeBackend, sizeOf } from './backend';

type Optional<S> = S extends `${infer Name}?` ? Name : never;
type Required<S> = S extends `${string}?` ? never : S;
export type Inputs<S> = { [K in Required<S> & string]: TensorInfo } & { [K in Optional<S>]?: TensorInfo };
/** A kernel by the inputs and attributes that @blip2/nn's table declares. */
export type Kernel<N extends KernelName> = (
  inputs: Inputs<KernelTable[N]['inputs']>,
  attrs: KernelTable[N]['attrs'],
  backend: NativeBackend,
) => TensorInfo | TensorInfo[];

export type Four = [Float32Array, Float32Array, Float32Array, Float32Array];

/** Throws unless `tensor` has this shape; the addon itself sees only lengths. */
export function expectShape(kernel: KernelName, what: string, tensor: TensorInfo, shape: number[]): void {
  if (tensor.shape.length !== shape.length || shape.some((n, axis) => tensor.shape[axis] !== n))
    throw new Error(`${kernel}: ${what} must have shape [${shape}], got [${tensor.shape}]`);
}

export function matrix(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length !== 2) throw new Error(`${kernel}: ${what} must have rank 2, got shape [${shape}]`);
  return [shape[0]!, shape[1]!];
}

/** [..., N] as [M, N]. */
export function rowsOf(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length < 1) throw new Error(`${kernel}: ${what} must have rank 1 or more, got a scalar`);
  return [sizeOf(shape.slice(0, -1)), shape[shape.length - 1]!];
}
