/** The time of a step by tfjs kernel: seconds, calls and multiply-adds. */
import { LAYER_KERNELS, takeApart } from '@blip2/nn';
import * as tf from '@tensorflow/tfjs-core';

export interface KernelTime {
  kernel: string;
  /** Of one step. */
  calls: number;
  seconds: number;
  /** Of matmuls, 2 per multiply-add; 0 for other kernels. */
  flop: number;
}

type Shapes = Record<string, number[] | undefined>;
const product = (shape: readonly number[] = []) => shape.reduce((a, b) => a * b, 1);

/** Operations of each matmul kernel from the shapes of its inputs (`kernels.ts` of nn); causal masks are ignored. */
const flopOf: Record<string, (s: Shapes) => number> = {
  NnLinear: ({ x, weight }) => 2 * product(x) * weight![0],
  NnLinearGradInput: ({ dy, weight }) => 2 * product(dy) * weight![1],
  NnLinearGradWeight: ({ dy, x }) => 2 * product(dy) * x!.at(-1)!,
  NnLinearCrossEntropy: ({ x, weight }) => 2 * product(x) * weight![0],
  NnLinearCrossEntropyGradInput: ({ x, weight }) => 4 * product(x) * weight![0],
  NnLinearCrossEntropyGradWeight: ({ x, weight }) => 4 * product(x) * weight![0],
  NnAttention: ({ q, k }) => 4 * product(q) * k![1],
  NnAttentionGrad: ({ q, k }) => 10 * product(q) * k![1],
};

export interface KernelClock {
  /** Discards the times so far. */
  reset(): void;
  /** Times of one step, the mean of `steps`, longest first. */
  perStep(steps: number): KernelTime[];
}

/**
 * Times every kernel of the backend; the time of a kernel includes kernels that it calls. Kernels of many layers are taken apart, and only
 * their parts are timed.
 */
export function watchKernels(backend: string): KernelClock {
  takeApart(backend);
  const times = new Map<string, Omit<KernelTime, 'kernel'>>();
  for (const config of tf.getKernelsForBackend(backend)) {
    const { kernelName, kernelFunc } = config;
    if ((LAYER_KERNELS as readonly string[]).includes(kernelName)) continue;
    const timed: tf.KernelFunc = (args) => {
      const begin = performance.now();
      const result = kernelFunc(args);
      const seconds = (performance.now() - begin) / 1000;
      const flop = flopOf[kernelName]?.(shapesOf(args.inputs)) ?? 0;
      const sofar = times.get(kernelName) ?? { calls: 0, seconds: 0, flop: 0 };
      times.set(kernelName, {
        calls: sofar.calls + 1,
        seconds: sofar.seconds + seconds,
        flop: sofar.flop + flop,
      });
      return result;
    };
    (config as { kernelFunc: tf.KernelFunc }).kernelFunc = timed;
  }
  return {
    reset: () => times.clear(),
    perStep: (steps) =>
      [...times]
        .map(([kernel, { calls, seconds, flop }]) => {
          return { kernel, calls: calls / steps, seconds: seconds / steps, flop: flop / steps };
        })
        .sort((a, b) => b.seconds - a.seconds),
  };
}

function shapesOf(inputs: tf.NamedTensorInfoMap): Shapes {
  return Object.fromEntries(Object.entries(inputs).map(([name, info]) => [name, info?.shape]));
}
