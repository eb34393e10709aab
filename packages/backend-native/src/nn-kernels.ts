// Every kernel of @blip2/nn's table (kernels.ts there documents them), handed to C++.
import type { KernelName, KernelTable } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';

type Optional<S> = S extends `${infer Name}?` ? Name : never;
type Required<S> = S extends `${string}?` ? never : S;
type Inputs<S> = { [K in Required<S> & string]: TensorInfo } & { [K in Optional<S>]?: TensorInfo };
type Kernel<N extends KernelName> = (
  inputs: Inputs<KernelTable[N]['inputs']>,
  attrs: KernelTable[N]['attrs'],
  backend: NativeBackend,
) => TensorInfo | TensorInfo[];

/** Throws unless `tensor` has this shape; the addon itself sees only lengths. */
function expectShape(kernel: KernelName, what: string, tensor: TensorInfo, shape: number[]): void {
  if (tensor.shape.length !== shape.length || shape.some((n, axis) => tensor.shape[axis] !== n))
    throw new Error(`${kernel}: ${what} must have shape [${shape}], got [${tensor.shape}]`);
}

function matrix(kernel: KernelName, what: string, { shape }: TensorInfo): [number, number] {
  if (shape.length !== 2) throw new Error(`${kernel}: ${what} must have rank 2, got shape [${shape}]`);
  return [shape[0]!, shape[1]!];
}

/** The arguments that both directions of attention begin with. */
function attentionArguments(
  kernel: 'NnAttention' | 'NnAttentionGrad',
  inputs: Inputs<KernelTable['NnAttention']['inputs']>,
  attrs: KernelTable['NnAttention']['attrs'],
  backend: NativeBackend,
) {
  const { q, k, v, keyMask } = inputs;
  if (q.shape.length !== 3 || k.shape.length !== 3)
    throw new Error(`${kernel}: q and k must have rank 3, got shapes [${q.shape}] and [${k.shape}]`);
  const [B, Tq, D] = q.shape as [number, number, number];
  const Tk = k.shape[1]!;
  expectShape(kernel, 'k', k, [B, Tk, D]);
  expectShape(kernel, 'v', v, [B, Tk, D]);
  if (keyMask) expectShape(kernel, 'keyMask', keyMask, [B, Tk]);
  const { numHeads, scale, causal, dropoutRate, key0, key1 } = attrs;
  const arrays = [backend.floats(q), backend.floats(k), backend.floats(v)] as const;
  const mask = keyMask ? backend.floats(keyMask) : null;
  return [B, Tq, Tk, D, numHeads, scale, causal, dropoutRate, key0, key1, ...arrays, mask] as const;
}

export const nnKernels: { [N in KernelName]: Kernel<N> } = {
  NnLinear({ x, weight, bias }, _attrs, backend) {
    const [, K] = matrix('NnLinear', 'x', x);
    expectShape('NnLinear', 'weight', weight, [weight.shape[0]!, K]);
    return backend.timesWeight(x, weight, true, bias);
  },

  NnLinearGradInput({ dy, weight }, _attrs, backend) {
    const [, K] = matrix('NnLinearGradInput', 'dy', dy);
    expectShape('NnLinearGradInput', 'weight', weight, [K, weight.shape[1]!]);
    return backend.timesWeight(dy, weight, false, undefined);
  },

  NnLinearGradWeight({ dy, x }, _attrs, backend) {
    const [K, M] = matrix('NnLinearGradWeight', 'dy', dy);
    const N = x.shape[1]!;
    expectShape('NnLinearGradWeight', 'x', x, [K, N]);
    const dw = backend.allocate([M, N]);
    const a = backend.floats(dy);
    backend.addon.gemm(a, true, backend.floats(x), false, null, dw.values, 1, M, N, K, false, false);
    return dw.info;
  },

  NnSumRows({ x }, _attrs, backend) {
    const [M, N] = matrix('NnSumRows', 'x', x);
    const y = backend.allocate([N]);
    backend.addon.sumRows(backend.floats(x), y.values, M, N);
    return y.info;
  },

  NnLayerNorm({ x, weight, bias }, { eps }, backend) {
    const [M, N] = matrix('NnLayerNorm', 'x', x);
    const y = backend.allocate([M, N]);
    const mean = backend.allocate([M]);
    const rstd = backend.allocate([M]);
    const parameters = [backend.floats(weight), backend.floats(bias), eps] as const;
    backend.addon.layerNorm(backend.floats(x), ...parameters, y.values, mean.values, rstd.values, M, N);
    return [y.info, mean.info, rstd.info];
  },

  NnLayerNormGradInput({ dy, x, weight, mean, rstd }, _attrs, backend) {
    const [M, N] = matrix('NnLayerNormGradInput', 'x', x);
    const dx = backend.allocate([M, N]);
    const [g, xs, w] = [backend.floats(dy), backend.floats(x), backend.floats(weight)];
    backend.addon.layerNormGradInput(g, xs, w, backend.floats(mean), backend.floats(rstd), dx.values, M, N);
    return dx.info;
  },

  NnLayerNormGradWeight({ dy, x, mean, rstd }, _attrs, backend) {
    const [M, N] = matrix('NnLayerNormGradWeight', 'x', x);
    const dweight = backend.allocate([N]);
    const [g, xs] = [backend.floats(dy), backend.floats(x)];
    backend.addon.layerNormGradWeight(
      g,
      xs,
      backend.floats(mean),
      backend.floats(rstd),
      dweight.values,
      M,
      N,
    );
    return dweight.info;
  },

  NnGelu({ x }, _attrs, backend) {
    const y = backend.allocate(x.shape);
    backend.addon.gelu(backend.floats(x), y.values);
    return y.info;
  },

  NnGeluGrad({ dy, x }, _attrs, backend) {
    const dx = backend.allocate(x.shape);
    backend.addon.geluGrad(backend.floats(dy), backend.floats(x), dx.values);
    return dx.info;
  },

  NnRelu({ x }, _attrs, backend) {
    const y = backend.allocate(x.shape);
    backend.addon.relu(backend.floats(x), y.values);
    return y.info;
  },

  NnReluGrad({ dy, y }, _attrs, backend) {
    const dx = backend.allocate(y.shape);
    backend.addon.reluGrad(backend.floats(dy), backend.floats(y), dx.values);
    return dx.info;
  },

  NnAttention(inputs, attrs, backend) {
    const args = attentionArguments('NnAttention', inputs, attrs, backend);
    const [B, Tq, , D, H] = args;
    const out = backend.allocate([B, Tq, D]);
    const lse = backend.allocate([B, H, Tq]);
    backend.addon.attention(...args, out.values, lse.values);
    return [out.info, lse.info];
  },

  NnAttentionGrad(inputs, attrs, backend) {
    const args = attentionArguments('NnAttentionGrad', inputs, attrs, backend);
    const [B, Tq, Tk, D, H] = args;
    expectShape('NnAttentionGrad', 'out', inputs.out, [B, Tq, D]);
    expectShape('NnAttentionGrad', 'lse', inputs.lse, [B, H, Tq]);
    expectShape('NnAttentionGrad', 'dout', inputs.dout, [B, Tq, D]);
    const dq = backend.allocate([B, Tq, D]);
    const dk = backend.allocate([B, Tk, D]);
    const dv = backend.allocate([B, Tk, D]);
    const saved = [
      backend.floats(inputs.out),
      backend.floats(inputs.lse),
      backend.floats(inputs.dout),
    ] as const;
    backend.addon.attentionGrad(...args, ...saved, dq.values, dk.values, dv.values);
    return [dq.info, dk.info, dv.info];
  },

  NnGatherRows({ x, indices }, _attrs, backend) {
    const [rows, D] = matrix('NnGatherRows', 'x', x);
    const y = backend.allocate([indices.shape[0]!, D]);
    const stored = backend.stored(x);
    if (stored) backend.addon.storedRows(stored.handle, backend.ints(indices), y.values);
    else backend.addon.gatherRows(backend.floats(x), backend.ints(indices), y.values, rows, D);
    return y.info;
  },

  NnScatterAddRows({ dy, indices }, { rows }, backend) {
    const D = matrix('NnScatterAddRows', 'dy', dy)[1];
    const dx = backend.allocate([rows, D]);
    backend.addon.scatterAddRows(backend.floats(dy), backend.ints(indices), dx.values, rows, D);
    return dx.info;
  },

  NnCrossEntropy({ logits, labels }, { labelSmoothing }, backend) {
    const [M, V] = matrix('NnCrossEntropy', 'logits', logits);
    const loss = backend.allocate([]);
    const lse = backend.allocate([M]);
    const given = [backend.floats(logits), backend.ints(labels), labelSmoothing] as const;
    backend.addon.crossEntropy(...given, loss.values, lse.values, M, V);
    return [loss.info, lse.info];
  },

  NnCrossEntropyGrad({ logits, labels, lse, dloss }, { labelSmoothing }, backend) {
    const [M, V] = matrix('NnCrossEntropyGrad', 'logits', logits);
    const dlogits = backend.allocate([M, V]);
    const given = [
      backend.floats(logits),
      backend.ints(labels),
      backend.floats(lse),
      backend.floats(dloss),
    ] as const;
    backend.addon.crossEntropyGrad(...given, labelSmoothing, dlogits.values, M, V);
    return dlogits.info;
  },

  NnDropout({ x }, { rate, key0, key1 }, backend) {
    const y = backend.allocate(x.shape);
    backend.addon.dropout(backend.floats(x), y.values, rate, key0, key1);
    return y.info;
  },

  NnSquaredSum({ x }, _attrs, backend) {
    const y = backend.allocate([]);
    backend.addon.squaredSum(backend.floats(x), y.values);
    return y.info;
  },

  NnAdamW({ param, grad, m, v, scale }, h, backend) {
    const given = [param, grad, m, v, scale].map((t) => backend.floats(t));
    const made = [param, m, v].map(({ shape }) => backend.allocate(shape));
    const arrays = [...given, ...made.map(({ values }) => values)] as [
      ...[Float32Array, Float32Array, Float32Array, Float32Array],
      ...[Float32Array, Float32Array, Float32Array, Float32Array],
    ];
    backend.addon.adamW(...arrays, h.lr, h.beta1, h.beta2, h.eps, h.weightDecay, h.c1, h.c2);
    return made.map(({ info }) => info);
  },
};
