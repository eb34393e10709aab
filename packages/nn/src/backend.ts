/** Which engine computes: finds, checks and starts tfjs backends. */
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import * as tf from '@tensorflow/tfjs-core';
import { registerReferenceKernels } from './own-kernels';
import { loadTensorflow } from './tensorflow';
import { registerGradients } from './tfjs-gradients';

export type BackendName = 'native' | 'tensorflow' | 'wasm' | 'cpu';
export interface BackendAttempt {
  name: BackendName;
  ok: boolean;
  /** What was found, or what is missing and how to get it. */
  why: string;
}
export interface BackendReport {
  name: BackendName;
  /** What products are computed in. */
  precision: Precision;
  tried: BackendAttempt[];
}

/** Of matrix products, those inside attention too: bfloat16 rounds their operands and sums in float32. Everything else is float32. */
export type Precision = 'float32' | 'bfloat16';
export const PRECISIONS: readonly Precision[] = ['float32', 'bfloat16'];

/** Backends in the order in which `auto` tries them; TensorFlow with a CUDA device comes before all. */
export const BACKENDS: readonly BackendName[] = ['native', 'tensorflow', 'wasm', 'cpu'];

type Load = () => Promise<{ ok: boolean; why: string }>;

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

const load: Record<BackendName, Load> = {
  native: async () => {
    const native = await optional(NATIVE);
    if (!native)
      return {
        ok: false,
        why: `the package ${NATIVE} is not installed, or not built: npm install ${NATIVE}`,
      };
    return (native.registerNativeBackend as Load)();
  },
  tensorflow: () => Promise.resolve(loadTensorflow()),
  wasm: async () => {
    const wasm = await import('@tensorflow/tfjs-backend-wasm');
    const entry = createRequire(import.meta.url).resolve('@tensorflow/tfjs-backend-wasm');
    wasm.setWasmPaths(`${dirname(entry)}/`);
    return { ok: true, why: 'WebAssembly with SIMD, one thread' };
  },
  cpu: async () => {
    await import('@tensorflow/tfjs-backend-cpu');
    return { ok: true, why: 'plain JavaScript: for checking, far too slow for training' };
  },
};

type Attempt = BackendAttempt & { precision: Precision };

async function attempt(name: BackendName, asked: Precision | 'auto'): Promise<Attempt> {
  const failed = (why: string): Attempt => ({ name, ok: false, why, precision: 'float32' });
  try {
    const { ok, why } = await load[name]();
    if (!ok) return failed(why);
    registerGradients();
    registerReferenceKernels(name);
    if (!(await tf.setBackend(name))) return failed(`tfjs could not start its backend "${name}"`);
    await tf.ready();
    silenceAdvice();
    const precision = setPrecision(name, asked);
    return { name, ok, precision, why: precision === 'bfloat16' ? `${why}, bfloat16 products` : why };
  } catch (error) {
    return failed((error as Error).message);
  }
}

/** What a backend may offer; one that offers nothing computes in float32. */
interface Precise {
  /** The fastest first. */
  precisions?: readonly Precision[];
  /** The one in use. */
  precision?: Precision;
  setPrecision?: (precision: Precision) => void;
}

/** @throws where the backend, or the machine, cannot */
function setPrecision(name: BackendName, asked: Precision | 'auto'): Precision {
  const backend = tf.backend() as Precise;
  const precision = asked === 'auto' ? (backend.precisions?.[0] ?? 'float32') : asked;
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
 * Starts a backend; await it once before any op. `auto` takes the first that works, at the precision asked for. The
 * precision `auto` is the backend's fastest: bfloat16 where native finds a processor that multiplies it, else float32.
 * @throws when the named backend (or, for `auto`, any backend) cannot be started, with the reason of each
 */
export async function useBackend(
  name: BackendName | 'auto' = 'auto',
  { precision = 'float32' }: { precision?: Precision | 'auto' } = {},
): Promise<BackendReport> {
  if (name !== 'auto' && !BACKENDS.includes(name)) {
    throw new Error(`useBackend: unknown backend "${name}"; choose auto, ${BACKENDS.join(', ')}`);
  }
  if (precision !== 'auto' && !PRECISIONS.includes(precision))
    throw new Error(`useBackend: unknown precision "${precision}"; choose auto, ${PRECISIONS.join(' or ')}`);
  const tried: BackendAttempt[] = [];
  for (const candidate of name === 'auto' ? automatic(precision) : [name]) {
    const { precision: granted, ...result } = await attempt(candidate, precision);
    tried.push(result);
    if (result.ok) return { name: candidate, precision: granted, tried };
  }
  throw new Error(`useBackend: no backend started: ${tried.map((t) => `${t.name}: ${t.why}`).join('; ')}`);
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

/** A CUDA device beats everything in float32; TensorFlow on the CPU is slower than native. */
function automatic(precision: Precision | 'auto'): readonly BackendName[] {
  const cuda = precision !== 'bfloat16' && loadTensorflow().gpu;
  return cuda ? ['tensorflow', ...BACKENDS.filter((name) => name !== 'tensorflow')] : BACKENDS;
}

/** Every backend that starts here, with the reason where one does not. Leaves the last one that started active. */
export async function probeBackends(): Promise<BackendAttempt[]> {
  const results: BackendAttempt[] = [];
  for (const name of [...BACKENDS].reverse()) {
    const { ok, why } = await attempt(name, 'float32');
    results.unshift({ name, ok, why });
  }
  return results;
}

/** Names of the backends that start here, for suites that run on each of them. */
export async function availableBackends(): Promise<BackendName[]> {
  return (await probeBackends()).filter(({ ok }) => ok).map(({ name }) => name);
}
