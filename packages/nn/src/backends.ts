/** Names of backends and precisions, and the start of a backend. Does not need Node (unlike node.ts). */
import * as tf from '@tensorflow/tfjs-core';
import { registerExactErf } from './exact-erf';
import { registerExactRsqrt } from './exact-rsqrt';
import { registerLongSums } from './long-sums';
import { registerReferenceKernels } from './own-kernels';
import { registerGradients } from './tfjs-gradients';

/** In the order in which `auto` tries them; WebGPU and TensorFlow come first if they have a GPU, and WebGPU only then. */
export const BACKENDS = ['native', 'tensorflow', 'webgpu', 'wasm', 'cpu'] as const;
export type BackendName = (typeof BACKENDS)[number];

export const PRECISIONS = ['float32', 'bfloat16', 'int8', 'int4'] as const;
/**
 * Precision of matmuls, including those in attention on native: bfloat16 rounds the operands and sums in float32. int8 and int4 have quantised
 * weights (`quantised`), of 8 bits, or of 4 in the text model: native multiplies them in 8 bits, with activations that it rounds, and
 * everything else in the fastest of the others; webgpu multiplies their values in float32. All else is float32.
 */
export type Precision = (typeof PRECISIONS)[number];

/** Bits to which a precision rounds the frozen weights of the text model; undefined if it rounds none. */
export function weightBits(precision: Precision | 'auto'): 8 | 4 | undefined {
  return precision === 'int8' ? 8 : precision === 'int4' ? 4 : undefined;
}

/** Loads a tfjs backend and registers it as `name`; or else `why` is what is missing and how to install it. */
export interface BackendProvider<Name extends string = BackendName> {
  readonly name: Name;
  load(): Promise<{ ok: boolean; why: string; memory?: number }>;
}

export interface BackendAttempt<Name extends string = BackendName> {
  name: Name;
  ok: boolean;
  /** What was found, or what is missing and how to install it. */
  why: string;
  /** Bytes of memory of the GPU, if the backend computes on one and they are known. */
  memory?: number;
}

export interface BackendReport<Name extends string = BackendName> {
  name: Name;
  /** Precision of matmuls. */
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

/** @param folder path or URL of the folder with its .wasm files, ending with a slash */
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
 * Starts one backend; await it once before any op. The precision `auto` is the fastest that rounds no weights to 8 bits.
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

/** Precision settings that a backend may have; without them, it computes in float32. */
interface Precise {
  /** First the fastest that rounds no weights to 8 bits. */
  precisions?: readonly Precision[];
  /** The precision of the next matmuls. */
  precision?: Precision;
  setPrecision?: (precision: Precision) => void;
}

/** `startBackend` without throwing. */
export async function attemptBackend<Name extends string>(
  { name, load }: BackendProvider<Name>,
  requested: Precision | 'auto',
): Promise<BackendAttempt<Name> & { precision: Precision }> {
  const failed = (why: string) => ({ name, ok: false, why, precision: 'float32' }) as const;
  try {
    const { ok, why, memory } = await load();
    if (!ok) return failed(why);
    registerGradients();
    registerReferenceKernels(name);
    registerLongSums(name);
    registerExactErf(name);
    registerExactRsqrt(name);
    if (!(await tf.setBackend(name))) return failed(`tfjs could not start its backend "${name}"`);
    await tf.ready();
    silenceAdvice();
    const precision = setPrecision(name, requested);
    return { name, ok, precision, memory, why: [why, ...kindOf(name, precision)].join(', ') };
  } catch (error) {
    return failed((error as Error).message);
  }
}

/** native rounds the activations of int8 too, webgpu the weights alone. */
function kindOf(name: string, precision: Precision): string[] {
  if (precision === 'float32') return [];
  return [`${precision} ${name === 'webgpu' && weightBits(precision) ? 'weights' : 'matmul'}`];
}

/** @throws if the backend or this processor does not support it */
function setPrecision(name: string, requested: Precision | 'auto'): Precision {
  const backend = tf.backend() as Precise;
  const precision = requested === 'auto' ? (backend.precisions?.[0] ?? 'float32') : requested;
  if (backend.setPrecision) backend.setPrecision(precision);
  else if (precision !== 'float32') {
    const those = weightBits(precision) ? 'native or webgpu' : 'native';
    throw new Error(`precision ${precision} needs the backend ${those}; ${name} computes in float32`);
  }
  return precision;
}

/** Suppresses a hint that the JavaScript backend prints on first use; `doctor` has such hints. */
function silenceAdvice(): void {
  const backend = tf.backend() as { firstUse?: boolean };
  if (backend.firstUse) backend.firstUse = false;
}

/**
 * Runs `f` with matmuls in float32, for arithmetic that needs exact operands. `f` is synchronous, so no other computation is affected.
 * @throws Error if `f` returns a promise, since the precision would change back at its first `await`
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
