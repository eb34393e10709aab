import { registerKernels } from '@blip2/nn';
import type { BackendProvider } from '@blip2/nn';
import * as tf from '@tensorflow/tfjs-core';
import { GpuBackend } from './backend';
import { adapterName, openDevice } from './device';
import type { Adapter, WebGpuOptions } from './device';
import { nnKernels } from './nn-kernels';
import type { ReadFile } from './stored-weights';

export interface WebGpuReport {
  ok: boolean;
  /** If ok, the adapter; else the reason and what to do. */
  why: string;
  adapter?: Adapter;
}

/**
 * The backend `webgpu` for `startBackend` of @blip2/nn, in a browser with `gpu: navigator.gpu`.
 * In Node, @blip2/backend-webgpu/node finds the GPU.
 */
export function webGpuBackend(options: WebGpuOptions): BackendProvider<'webgpu'> {
  return { name: 'webgpu', load: () => registerWebGpu(options) };
}

let report: WebGpuReport | undefined;

/**
 * Opens a device and registers the tfjs backend `webgpu`, once. Without a GPU, `why` is what is missing.
 * @param readFile for weights that are in files
 */
export async function registerWebGpu(options: WebGpuOptions, readFile?: ReadFile): Promise<WebGpuReport> {
  if (report?.ok) return report;
  try {
    const opened = await openDevice(options);
    const backend = withNavigator(options.gpu, () => new GpuBackend(opened, readFile));
    if (tf.findBackendFactory('webgpu')) tf.removeBackend('webgpu'); // tfjs registers its own in a browser
    tf.registerBackend('webgpu', () => backend);
    registerKernels('webgpu', nnKernels);
    const { adapter } = opened;
    const why = `${adapterName(adapter)}${adapter.software ? ', which computes on the processor' : ''}`;
    return (report = { ok: true, why, adapter });
  } catch (error) {
    return { ok: false, why: (error as Error).message };
  }
}

/** tfjs looks for a GPU in `navigator` when a backend is made. Node ends only if nothing refers to the GPU, so it is removed again. */
function withNavigator<T>(gpu: GPU, make: () => T): T {
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  if ((globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu) return make();
  Object.defineProperty(globalThis, 'navigator', { value: { gpu }, configurable: true });
  try {
    return make();
  } finally {
    if (before) Object.defineProperty(globalThis, 'navigator', before);
    else delete (globalThis as { navigator?: unknown }).navigator;
  }
}
