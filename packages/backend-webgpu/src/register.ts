import { registerKernels } from '@blip2/nn';
import type { BackendProvider } from '@blip2/nn';
import * as tf from '@tensorflow/tfjs-core';
import { GpuBackend } from './backend';
import { adapterName, openDevice, softwareOnly } from './device';
import type { Adapter, WebGpuOptions } from './device';
import { prepare } from './levels';
import { nnKernels } from './nn-kernels';
import type { WeightFiles } from './stored-weights';
import { withTrial } from './try-tile';

export interface WebGpuReport {
  ok: boolean;
  /** If ok, the adapter; else the reason and what to do. */
  why: string;
  adapter?: Adapter;
  /** Bytes of memory of the GPU, if they are known: WebGPU itself does not report it. */
  memory?: number;
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
 * @param files for weights that are in files
 */
export async function registerWebGpu(options: WebGpuOptions, files?: WeightFiles): Promise<WebGpuReport> {
  if (report?.ok) return report.adapter?.software && !options.software ? refused(report.adapter) : report;
  try {
    const opened = await openDevice(options);
    const backend = withNavigator(options.gpu, () => new GpuBackend(opened, files));
    if (tf.findBackendFactory('webgpu')) tf.removeBackend('webgpu'); // tfjs registers its own in a browser
    tf.registerBackend('webgpu', () => backend);
    registerKernels('webgpu', nnKernels);
    const { adapter } = opened;
    const levels = await prepare(backend, (work) => withTrial(backend, work), options.measurements);
    const kind = adapter.software ? ', which computes on the processor' : '';
    const why = [`${adapterName(adapter)}${kind}`, limits(adapter), ...levels].join(', ');
    return (report = { ok: true, why, adapter });
  } catch (error) {
    return { ok: false, why: (error as Error).message };
  }
}

function limits({ largestBinding, sharedBytes }: Adapter): string {
  return `buffers to ${(largestBinding / 2 ** 30).toFixed(2)} GiB, ${sharedBytes >> 10} KiB shared`;
}

function refused(adapter: Adapter): WebGpuReport {
  return { ok: false, why: softwareOnly(adapter) };
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
