// NnLinear with LoRA. The second matmul of the low-rank term adds directly to the result.
import type { KernelAttrs, KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';
import type { NnKernel } from './kernel';
import { expectShape, rowsOf } from './shape-checks';

type LoraKernelName = Extract<KernelName, `NnLora${string}`>;
type Attrs = KernelAttrs<'NnLoraLinear'>;

/** factor · x. */
function scaled(x: TensorInfo, factor: number, backend: NativeBackend): TensorInfo {
  return backend.made(x.shape, (y) => {
    const shape = [y.length];
    if (y.length > 0) backend.addon.binary(2, backend.floats(x), [1], Float32Array.of(factor), [0], shape, y);
  });
}

/** Calls f with x after dropout, and disposes of that tensor afterwards. */
function withDropped<T>(x: TensorInfo, a: Attrs, backend: NativeBackend, f: (x: TensorInfo) => T): T {
  if (a.rate === 0) return f(x);
  const dropped = backend.made(x.shape, (y) =>
    backend.addon.dropout(backend.floats(x), y, a.rate, a.key0, a.key1, false),
  );
  const result = f(dropped);
  backend.disposeIntermediateTensorInfo(dropped);
  return result;
}

/** aᵀ·b over all rows: a [..., M], b [..., N] → [M, N]. */
export function transposedMatmul(a: TensorInfo, b: TensorInfo, backend: NativeBackend): TensorInfo {
  const [K, M] = rowsOf('NnLinearGradWeight', 'dy', a);
  const N = b.shape[b.shape.length - 1]!;
  const operands = [backend.floats(a), true, backend.floats(b), false, null] as const;
  return backend.made([M, N], (y) =>
    backend.addon.gemm(...operands, y, 1, M, N, K, false, false, backend.precision),
  );
}

/** y += x · weight or, transposed, x · weightᵀ. */
function addMatmul(
  x: TensorInfo,
  weight: TensorInfo,
  transposed: boolean,
  y: TensorInfo,
  backend: NativeBackend,
): void {
  const [M, K] = rowsOf('NnLoraLinear', 'x', x);
  const N = weight.shape[transposed ? 0 : 1]!;
  const operands = [backend.floats(x), backend.floats(weight)] as const;
  backend.addon.gemmAdd(...operands, transposed, backend.floats(y), M, N, K, backend.precision);
}

export const loraKernels: { [N in LoraKernelName]: NnKernel<N> } = {
  NnLoraLinear({ x, weight, bias, residual, lora_A, lora_B }, a, backend) {
    const [, K] = rowsOf('NnLoraLinear', 'x', x);
    const [N, r] = [weight.shape[0]!, lora_A.shape[0]!];
    expectShape('NnLoraLinear', 'weight', weight, [N, K]);
    expectShape('NnLoraLinear', 'lora_A', lora_A, [r, K]);
    expectShape('NnLoraLinear', 'lora_B', lora_B, [N, r]);
    const y = backend.timesWeight(x, weight, true, { bias, residual });
    const low = withDropped(x, a, backend, (dropped) => backend.timesWeight(dropped, lora_A, true));
    const part = scaled(low, a.scaling, backend);
    addMatmul(part, lora_B, true, y, backend);
    backend.disposeIntermediateTensorInfo(part);
    return [y, low];
  },

  NnLoraLinearGradLow({ dy, lora_B }, { scaling }, backend) {
    const unscaled = backend.timesWeight(dy, lora_B, false);
    const dlow = scaled(unscaled, scaling, backend);
    backend.disposeIntermediateTensorInfo(unscaled);
    return dlow;
  },

  NnLoraLinearGradInput({ dy, weight, lora_A, dlow }, a, backend) {
    const dx = backend.timesWeight(dy, weight, false);
    if (a.rate === 0) {
      addMatmul(dlow, lora_A, false, dx, backend);
    } else {
      const part = backend.timesWeight(dlow, lora_A, false);
      backend.addon.dropout(backend.floats(part), backend.floats(dx), a.rate, a.key0, a.key1, true);
      backend.disposeIntermediateTensorInfo(part);
    }
    return dx;
  },

  NnLoraLinearGradA: ({ x, dlow }, a, backend) =>
    withDropped(x, a, backend, (dropped) => transposedMatmul(dlow, dropped, backend)),

  NnLoraLinearGradB({ dy, low }, { scaling }, backend) {
    const part = scaled(low, scaling, backend);
    const dB = transposedMatmul(dy, part, backend);
    backend.disposeIntermediateTensorInfo(part);
    return dB;
  },
};
