import { registerKernels } from '@blip2/nn';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { loadAddon } from './addon';
import { NativeBackend } from './backend';
import { gradientKernels } from './gradient-kernels';
import type { NativeKernel } from './kernel';
import { nnKernels } from './nn-kernels';
import { tfjsKernels } from './tfjs-kernels';

export interface NativeBackendReport {
  ok: boolean;
  /** Why not, with what to do about it; what was found when ok. */
  why: string;
  instructionSet?: string;
  threads?: number;
}

let report: NativeBackendReport | undefined;

/**
 * Registers the tfjs backend `native`: all kernels of `cpu`, the hot ones and every Nn* kernel in C++.
 * Calling it again only repeats the answer. Nothing is registered when the addon is missing.
 */
export async function registerNativeBackend(): Promise<NativeBackendReport> {
  if (report?.ok) return report;
  const loaded = loadAddon();
  if (!loaded.addon) return (report = { ok: false, why: loaded.why });
  const { addon, threads, origin } = loaded;
  tf.registerBackend('native', () => new NativeBackend(addon), 2);
  tf.copyRegisteredKernels('cpu', 'native');
  for (const [kernelName, run] of Object.entries(tfjsKernels(cpuKernel))) override(kernelName, run);
  for (const [kernelName, run] of Object.entries(gradientKernels(cpuKernel))) override(kernelName, run);
  registerKernels('native', nnKernels);
  const instructionSet = addon.instructionSet();
  const why = `${instructionSet}, ${threads} threads, addon ${origin}`;
  return (report = { ok: true, why, instructionSet, threads });
}

function override(kernelName: string, run: NativeKernel): void {
  if (tf.getKernel(kernelName, 'native')) tf.unregisterKernel(kernelName, 'native');
  tf.registerKernel({
    kernelName,
    backendName: 'native',
    kernelFunc: ({ inputs, attrs, backend }) => run(inputs, (attrs ?? {}) as never, backend as NativeBackend),
  });
}

/** The plain tfjs kernel, for the cases that C++ does not cover. */
function cpuKernel(kernelName: string): NativeKernel {
  const kernel = tf.getKernel(kernelName, 'cpu');
  return (inputs, attrs, backend) =>
    kernel.kernelFunc({ inputs: inputs as tf.NamedTensorInfoMap, attrs, backend });
}
