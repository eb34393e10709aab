import { registerKernels } from '@blip2/nn';
import type { Rounding } from '@blip2/nn';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-cpu';
import { loadAddon } from './addon';
import { NativeBackend } from './backend';
import type { NativeKernel } from './kernel';
import { nnKernels } from './nn-kernels';
import { StoredWeights } from './stored-weights';
import { tfjsKernels } from './tfjs-kernels';

export interface NativeBackendReport {
  ok: boolean;
  /** If ok, instruction set, threads and addon; else the reason and how to fix it. */
  why: string;
  instructionSet?: string;
  threads?: number;
}

let report: NativeBackendReport | undefined;

/**
 * Registers the tfjs backend `native`: all kernels of `cpu`, with those that matter for speed and every Nn* kernel in C++.
 * Registers nothing if the addon is missing; further calls return the same report.
 */
export async function registerNativeBackend(): Promise<NativeBackendReport> {
  if (report?.ok) return report;
  const loaded = loadAddon();
  if (!loaded.addon) return (report = { ok: false, why: loaded.why });
  const { addon, threads, origin } = loaded;
  tf.registerBackend('native', () => new NativeBackend(addon), 2);
  tf.copyRegisteredKernels('cpu', 'native');
  for (const [kernelName, run] of Object.entries(tfjsKernels(cpuKernel))) override(kernelName, run);
  registerKernels('native', nnKernels);
  const instructionSet = addon.instructionSet();
  const why = `${instructionSet}, ${threads} threads, addon ${origin}`;
  return (report = { ok: true, why, instructionSet, threads });
}

/** Rounds weights for other backends; undefined if the addon is missing. */
export function nativeRounding(): Rounding | undefined {
  const { addon } = loadAddon();
  if (!addon) return undefined;
  const weights = new StoredWeights(addon);
  return (weight, factors, bits) => weights.quantised(weight, factors, bits);
}

function override(kernelName: string, run: NativeKernel): void {
  if (tf.getKernel(kernelName, 'native')) tf.unregisterKernel(kernelName, 'native');
  tf.registerKernel({
    kernelName,
    backendName: 'native',
    kernelFunc: ({ inputs, attrs, backend }) => run(inputs, (attrs ?? {}) as never, backend as NativeBackend),
  });
}

/** tfjs's own kernel, for cases that C++ does not cover. */
function cpuKernel(kernelName: string): NativeKernel {
  const kernel = tf.getKernel(kernelName, 'cpu');
  return (inputs, attrs, backend) =>
    kernel.kernelFunc({ inputs: inputs as tf.NamedTensorInfoMap, attrs, backend });
}
