/** The backends and precisions by name, and how any backend is started. Nothing here needs Node: see node.ts for what does. */
import * as tf from '@tensorflow/tfjs-core';
import { registerReferenceKernels } from './own-kernels';
import { registerGradients } from './tfjs-gradients';

/** In the order in which `auto` tries them; TensorFlow with a CUDA device comes before all. */
export const BACKENDS = ['native', 'tensorflow', 'wasm', 'cpu'] as const;
export type BackendName = (typeof BACKENDS)[number];

export const PRECISIONS = ['float32', 'bfloat16'] as const;
/** Of matmuls, including those inside attention: bfloat16 rounds their operands and sums in float32. Everything else is float32. */
export type Precision = (typeof PRECISIONS)[number];

/** Loads a tfjs backend: afterwards it is registered under `name`, or `why` states what is missing and how to get it. */
export interface BackendProvider<Name extends string = BackendName> {
  readonly name: Name;
  load(): Promise<{ ok: boolean; why: string }>;
}

export interface BackendAttempt<Name extends string = BackendName> {
  name: Name;
  ok: boolean;
  /** What was found, or what is missing and how to get it. */
  why: string;
}

export interface BackendReport<Name extends string = BackendName> {
  name: Name;
  /** What matmuls are computed in. */
  precision: Precision;
  tried: BackendAttempt<Name>[];
}

export const cpuBackend: BackendProvider<'cpu'> = {
  name: 'cpu',
  load: async () => {
    await import('@tensorflow/tfjs-backend-cpu');
    return { ok: true, why: 'plain JavaScript: for checking, far too slow for training' };
  },
};

/** @param folder where its .wasm files are, ending with a slash: a path or a URL */
export function wasmBackend(folder: string): BackendProvider<'wasm'> {
  return {
    name: 'wasm',
    load: async () => {
      const wasm = await import('@tensorflow/tfjs-backend-wasm');
      wasm.setWasmPaths(folder);
      return { ok: true, why: 'WebAssembly with SIMD, one thread' };
    },
  };
}

/**
 * Starts one backend; await it once before any op. The precision `auto` is the fastest that the backend offers.
 * @throws if it cannot be started or does not have the precision
 */
export async function startBackend<Name extends string>(
  provider: BackendProvider<Name>,
  { precision = 'float32' }: { precision?: Precision | 'auto' } = {},
): Promise<BackendReport<Name>> {
  const { precision: granted, ...attempt } = await attemptBackend(provider, precision);
  const { name, ok, why } = attempt;
  if (!ok) throw new Error(`startBackend: ${name}: ${why}`);
  return { name, precision: granted, tried: [attempt] };
}

/** What a backend may offer; one that offers nothing computes in float32. */
interface Precise {
  /** The fastest first. */
  precisions?: readonly Precision[];
  /** Of the next matmuls. */
  precision?: Precision;
  setPrecision?: (precision: Precision) => void;
}

/** `startBackend` without throwing. */
export async function attemptBackend<Name extends string>(
  { name, load }: BackendProvider<Name>,
  wanted: Precision | 'auto',
): Promise<BackendAttempt<Name> & { precision: Precision }> {
  const failed = (why: string) => ({ name, ok: false, why, precision: 'float32' }) as const;
  try {
    const { ok, why } = await load();
    if (!ok) return failed(why);
    registerGradients();
    registerReferenceKernels(name);
    if (!(await tf.setBackend(name))) return failed(`tfjs could not start its backend "${name}"`);
    await tf.ready();
    silenceAdvice();
    const precision = setPrecision(name, wanted);
    return { name, ok, precision, why: precision === 'bfloat16' ? `${why}, bfloat16 products` : why };
  } catch (error) {
    return failed((error as Error).message);
  }
}

/** @throws if the backend or this processor does not support it */
function setPrecision(name: string, wanted: Precision | 'auto'): Precision {
  const backend = tf.backend() as Precise;
  const precision = wanted === 'auto' ? (backend.precisions?.[0] ?? 'float32') : wanted;
  if (backend.setPrecision) backend.setPrecision(precision);
  else if (precision === 'bfloat16')
    throw new Error(`precision bfloat16 needs the backend native; ${name} computes in float32`);
  return precision;
}

/** The JavaScript backend prints an advertisement on first use, which belongs in `doctor`, not in users' logs. */
function silenceAdvice(): void {
  const backend = tf.backend() as { firstUse?: boolean };
  if (backend.firstUse) backend.firstUse = false;
}

/**
 * Runs `f` with matmuls in float32 whatever the backend's precision: for arithmetic that rounding would spoil. Nothing else runs
 * meanwhile, so no other computation sees it.
 * @throws if `f` returns a promise: what it does after an `await` would have the backend's precision again
 */
export function inFloat32<T>(f: () => T): T {
  const backend = tf.backend() as Precise;
  const { precision } = backend;
  backend.precision = precision && 'float32';
  try {
    const result = f();
    if (result instanceof Promise) throw new Error('inFloat32: expected a function without await');
    return result;
  } finally {
    backend.precision = precision;
  }
}
