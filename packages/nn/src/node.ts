/** Finds and starts backends in Node. */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { backend } from '@tensorflow/tfjs-core';
import { attemptBackend, BACKENDS, cpuBackend, PRECISIONS, wasmBackend, weightBits } from './backends';
import type { BackendAttempt, BackendName, BackendProvider, BackendReport, Precision } from './backends';
import type { Rounding, StoringBackend } from './stored';
import { loadTensorflow } from './tensorflow';

/** A module name that bundlers and type checkers must not resolve: the package may be absent. */
async function optional(name: string): Promise<Record<string, unknown> | undefined> {
  try {
    return (await import(name)) as Record<string, unknown>;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') return undefined;
    throw error;
  }
}

const NATIVE = '@blip2/backend-native';
const WEBGPU = '@blip2/backend-webgpu/node';

/** @param software whether an adapter that computes on the processor will do */
async function loadWebGpu(software: boolean): Promise<{ ok: boolean; why: string; memory?: number }> {
  const webgpu = await optional(WEBGPU);
  if (!webgpu)
    return {
      ok: false,
      why: 'the package @blip2/backend-webgpu is not installed, or not built: npm install',
    };
  return (webgpu.registerWebGpuInNode as (o: object) => ReturnType<typeof loadWebGpu>)({ software });
}

/** This package's copy of the .wasm files. */
const wasmFolder = () =>
  `${dirname(createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm'))}/`;

const providers: { readonly [Name in BackendName]: BackendProvider } = {
  native: {
    name: 'native',
    load: async () => {
      const native = await optional(NATIVE);
      if (native) return (native.registerNativeBackend as BackendProvider['load'])();
      const why = `the package ${NATIVE} is not installed, or not built: npm install ${NATIVE}`;
      return { ok: false, why };
    },
  },
  tensorflow: { name: 'tensorflow', load: () => Promise.resolve(loadTensorflow()) },
  webgpu: { name: 'webgpu', load: () => loadWebGpu(true) },
  wasm: { name: 'wasm', load: () => wasmBackend(wasmFolder()).load() },
  cpu: cpuBackend,
};

/**
 * Starts a backend; await it once before any op. The backend `auto` is the first that starts with the precision. The precision `auto`
 * is the fastest of the backend: bfloat16 for native on a processor that supports it, else float32.
 * @throws Error if the backend (for `auto`, every backend) cannot be started, with the reasons
 */
export async function useBackend(
  name: BackendName | 'auto' = 'auto',
  { precision = 'float32' }: { precision?: Precision | 'auto' } = {},
): Promise<BackendReport> {
  if (name !== 'auto' && !BACKENDS.includes(name)) {
    throw new Error(`useBackend: unknown backend "${name}"; choose auto, ${BACKENDS.join(', ')}`);
  }
  if (precision !== 'auto' && !PRECISIONS.includes(precision))
    throw new Error(`useBackend: unknown precision "${precision}"; choose auto, ${PRECISIONS.join(', ')}`);
  const tried: BackendAttempt[] = [];
  for (const candidate of name === 'auto' ? await automatic(precision) : [name]) {
    const { precision: granted, ...result } = await attemptBackend(providers[candidate], precision);
    tried.push(result);
    if (!result.ok) continue;
    if (candidate === 'webgpu' && weightBits(granted)) await roundByAddon();
    return { name: candidate, precision: granted, tried };
  }
  throw new Error(`useBackend: no backend started: ${tried.map((t) => `${t.name}: ${t.why}`).join('; ')}`);
}

/** The addon rounds weights several times as fast as plain JavaScript, to the same bits. */
async function roundByAddon(): Promise<void> {
  const native = await optional(NATIVE).catch(() => undefined);
  const rounding = (native?.nativeRounding as (() => Rounding | undefined) | undefined)?.();
  if (rounding) (backend() as Partial<StoringBackend>).rounding = rounding;
}

/**
 * A GPU is the fastest: through WebGPU, which keeps frozen weights encoded, else in float32 through CUDA. Without one, WebGPU and
 * TensorFlow are slower than native. A worker thread does not look for CUDA: a process in which a worker has loaded TensorFlow
 * crashes when it ends.
 */
async function automatic(precision: Precision | 'auto'): Promise<readonly BackendName[]> {
  const processor = BACKENDS.filter((name) => name !== 'webgpu');
  if ((await loadWebGpu(false)).ok) return ['webgpu', ...processor];
  if (precision !== 'auto' && precision !== 'float32') return processor;
  const cuda = isMainThread && loadTensorflow().gpu;
  return cuda ? ['tensorflow', ...processor.filter((name) => name !== 'tensorflow')] : processor;
}

/** Whether each backend starts on this machine, and why not. The last one that started remains active. */
export async function probeBackends(): Promise<BackendAttempt[]> {
  const results: BackendAttempt[] = [];
  for (const name of [...BACKENDS].reverse()) {
    const { ok, why, memory } = await attemptBackend(providers[name], 'float32');
    results.unshift({ name, ok, why, memory });
  }
  return results;
}

/**
 * Names of the backends that start on this machine, for suites that run on each of them. WebGPU needs a GPU for that: on the processor it
 * would take minutes, and has a suite of its own.
 */
export async function availableBackends(): Promise<BackendName[]> {
  const started = (await probeBackends()).filter(({ ok }) => ok).map(({ name }) => name);
  const gpu = started.includes('webgpu') && (await loadWebGpu(false)).ok;
  return started.filter((name) => name !== 'webgpu' || gpu);
}
