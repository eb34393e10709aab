/** Finds and loads tfjs-node (for CUDA or CPU), which registers tfjs's backend `tensorflow` when it is imported. */
import { createRequire } from 'node:module';
import { env } from '@tensorflow/tfjs-core';

/** The CUDA package first: it also runs on the CPU if there is no device. */
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];
const HOW =
  'npm install @tensorflow/tfjs-node@4.22.0 (or tfjs-node-gpu), or in a checkout of this repository: npx nx run libtensorflow:setup';

export interface TensorflowReport {
  ok: boolean;
  /** Whether TensorFlow uses a CUDA device. */
  gpu: boolean;
  why: string;
}

interface TfjsNode {
  findBackend(
    name: string,
  ): { isUsingGpuDevice?: boolean; binding?: { TF_Version?: string } } | null | undefined;
}

/** Loads the package that is installed. For one that is installed but does not load, `why` is the reason. */
export function loadTensorflow(
  load: (name: string) => unknown = (name) => requireHere(name),
): TensorflowReport {
  const broken: string[] = [];
  for (const name of PACKAGES) {
    const found = attemptPackage(name, load);
    if (typeof found === 'string') broken.push(`${name}: ${found}`);
    else if (found) return describe(name, found);
  }
  const why = broken.join('; ') || `neither ${PACKAGES.join(' nor ')} is installed`;
  return { ok: false, gpu: false, why: `${why} (${HOW})` };
}

function describe(name: string, tfjs: TfjsNode): TensorflowReport {
  const backend = tfjs.findBackend('tensorflow');
  if (!backend) return { ok: false, gpu: false, why: `${name} registered no backend "tensorflow"` };
  const gpu = backend.isUsingGpuDevice === true;
  const version = backend.binding?.TF_Version ?? 'of unknown version';
  return { ok: true, gpu, why: `TensorFlow ${version}, ${gpu ? 'CUDA device' : 'CPU'} (${name})` };
}

/** The module, or why it does not load, or undefined if it is not installed. */
function attemptPackage(name: string, load: (name: string) => unknown): TfjsNode | string | undefined {
  shimUtil();
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '1'; // 0 prints a page about instruction sets at every start
  // The package loads a second copy of tfjs-core and the cpu backend, and tfjs would print a warning for each of its 170 kernels. So
  // warnings stay off if it is installed. All copies of tfjs-core in a process share one environment.
  const before = env().getBool('PROD');
  env().set('PROD', true);
  try {
    return load(name) as TfjsNode;
  } catch (error) {
    env().set('PROD', before);
    const { code, message } = error as NodeJS.ErrnoException;
    const absent = code === 'MODULE_NOT_FOUND' && message.includes(`'${name}'`);
    return absent ? undefined : message.split('\n')[0];
  }
}

/** CommonJS, since the shim below must change the object that tfjs-node gets from `require('util')`. */
const requireHere = createRequire(import.meta.url);

/** Node 23 removed two functions of `util` that tfjs-node 4.22 calls. */
function shimUtil(): void {
  const util = requireHere('node:util') as Record<string, unknown>;
  util.isNullOrUndefined ??= (x: unknown) => x === null || x === undefined;
  util.isArray ??= Array.isArray;
}
