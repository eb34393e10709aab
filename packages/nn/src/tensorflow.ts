/** Finds and loads tfjs-node, in its CUDA or its CPU form, which registers tfjs's backend `tensorflow` when it is imported. */
import { createRequire } from 'node:module';
import { env } from '@tensorflow/tfjs-core';

/** The CUDA package first: with a device it is the fastest, without one it still computes on the CPU. */
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'];
const HOW =
  'npm install @tensorflow/tfjs-node@4.22.0 (or tfjs-node-gpu), or in a checkout of this repository: npx nx run libtensorflow:setup';

export interface TensorflowReport {
  ok: boolean;
  /** TensorFlow sees a CUDA device. */
  gpu: boolean;
  why: string;
}

interface TfjsNode {
  findBackend(
    name: string,
  ): { isUsingGpuDevice?: boolean; binding?: { TF_Version?: string } } | null | undefined;
}

/** Loads whichever package is installed. A package that is there but broken says why instead of counting as absent. */
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

/** The module, why it does not load, or undefined where it is not installed. */
function attemptPackage(name: string, load: (name: string) => unknown): TfjsNode | string | undefined {
  shimUtil();
  process.env.TF_CPP_MIN_LOG_LEVEL ??= '1'; // 0 prints a page about instruction sets at every start
  // It brings tfjs-core and the cpu backend once more, and tfjs would warn of that and of each of the 170 kernels, whichever copy comes
  // second; so its warnings stay off when the package is there. All copies of tfjs-core in a process share one environment.
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

/** CommonJS on purpose: the shim below must reach the very object that tfjs-node's `require('util')` gets. */
const requireHere = createRequire(import.meta.url);

/** Node 23 removed two functions of `util` that tfjs-node 4.22 calls. */
function shimUtil(): void {
  const util = requireHere('node:util') as Record<string, unknown>;
  util.isNullOrUndefined ??= (x: unknown) => x === null || x === undefined;
  util.isArray ??= Array.isArray;
}
