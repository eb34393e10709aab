import type { Kernel, KernelName } from '@blip2/nn';
import type { GpuBackend } from './backend';

/** Kernels of the table in @blip2/nn, by name. */
export type KernelsOf<Name extends KernelName> = { [N in Name]: Kernel<N, GpuBackend> };

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}
