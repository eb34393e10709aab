/** The kernels of @blip2/nn (documented in its kernels.ts) that have a shader; others run as compositions. */
import type { Kernel, KernelName } from '@blip2/nn';
import type { GpuBackend } from './backend';

export const nnKernels: { [N in KernelName]?: Kernel<N, GpuBackend> } = {};
