// All kernels of @blip2/nn (documented in its kernels.ts), in C++.
import type { KernelAttrs, KernelInputs, KernelName } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeBackend } from './backend';
import { decoderLayers } from './decoder-layers';
import { encoderLayers } from './encoder-layers';
import type { NnKernel } from './kernel';
import { loraKernels, transposedMatmul } from './lora-kernels';
import { lossKernels } from './loss-kernels';
import { addHalves, splitRows } from './precise-input';
import { expectShape, matrix, rowsOf } from './shape-checks';

function expectBias(kernel: KernelName, bias: TensorInfo, [B, ...rest]: number[]): void {
  expectShape(kernel, 'bias', bias, [bias.shape[0] === 1 ? 1 : B!, ...rest]);
}

/** The first arguments of both directions of attention. */
function attentionArguments(
  kernel: 'NnAttention' | 'NnAttentionGrad' | 'NnAttentionGradBias',
  inputs: KernelInputs<'NnAttention', TensorInfo>,
  attrs: KernelAttrs<'NnAttention'>,
  backend: NativeBackend,
) {
  const { q, k, v, keyMask, bias } = inputs;
  if (q.shape.length !== 3 || k.shape.length !== 3)
    throw new Error(`${kernel}: expected q and k of rank 3, found [${q.shape}] and [${k.shape}]`);
  const [B, Tq, D] = q.shape as [number, number, number];
  const Tk = k.shape[1]!;
  expectShape(kernel, 'k', k, [B, Tk, D]);
  expectShape(kernel, 'v', v, [B, Tk, D]);
  if (keyMask) expectShape(kernel, 'keyMask', keyMask, [B, Tk]);
  const { numHeads, scale, causal, dropoutRate, key0, key1 } = attrs;
  if (bias) expectBias(kernel, bias, [B, numHeads, Tq, Tk]);
  const arrays = [backend.floats(q), backend.floats(k), backend.floats(v)] as const;
  const optional = [backend.floatsOrNull(keyMask), backend.floatsOrNull(bias)] as const;
  const options = [numHeads, scale, causal, dropoutRate, key0, key1] as const;
  return [B, Tq, Tk, D, ...options, ...arrays, ...optional] as const;
}

/** The additional arguments of the backward passes. */
function savedArguments(
  kernel: 'NnAttentionGrad' | 'NnAttentionGradBias',
  inputs: KernelInputs<'NnAttentionGrad', TensorInfo>,
  [B, Tq, , D, H]: ReturnType<typeof attentionArguments>,
  backend: NativeBackend,
) {
  const { out, lse, dout } = inputs;
  expectShape(kernel, 'out', out, [B, Tq, D]);
  expectShape(kernel, 'lse', lse, [B, H, Tq]);
  expectShape(kernel, 'dout', dout, [B, Tq, D]);
  return [backend.floats(out), backend.floats(lse), backend.floats(dout)] as const;
}

/** x [..., K] · weight [N, K], x split in two parts that the product rounds to 8 bits each. */
function timesInParts(
  x: TensorInfo,
  weight: TensorInfo,
  factors: Float32Array,
  backend: NativeBackend,
): TensorInfo {
  const [M, K] = rowsOf('NnLinear', 'x', x);
  const shape = [...x.shape.slice(0, -1), weight.shape[0]!];
  const held = [backend.made([2 * M, K], (values) => splitRows(backend.floats(x), factors, values))];
  try {
    held.push(backend.timesWeight(held[0]!, weight, true));
    return backend.made(shape, (values) => addHalves(backend.floats(held[1]!), values));
  } finally {
    for (const { dataId } of held) backend.disposeData(dataId);
  }
}

/** The gradient of x of LayerNorm or, without mean, RMSNorm. */
function normGradInput(
  kernel: KernelName,
  inputs: KernelInputs<'NnRmsNormGradInput', TensorInfo> & { mean?: TensorInfo },
  backend: NativeBackend,
): TensorInfo {
  const { dy, x, weight, mean, rstd } = inputs;
  const sizes = rowsOf(kernel, 'x', x);
  const operands = [backend.floats(dy), backend.floats(x), backend.floats(weight)] as const;
  const statistics = [backend.floatsOrNull(mean), backend.floats(rstd)] as const;
  return backend.made(x.shape, (dx) =>
    backend.addon.layerNormGradInput(...operands, ...statistics, dx, ...sizes),
  );
}

/** The gradient of the weight of LayerNorm or, without mean, RMSNorm. */
function normGradWeight(
  kernel: KernelName,
  inputs: KernelInputs<'NnRmsNormGradWeight', TensorInfo> & { mean?: TensorInfo },
  backend: NativeBackend,
): TensorInfo {
  const { dy, x, mean, rstd } = inputs;
  const [M, N] = rowsOf(kernel, 'x', x);
  const operands = [backend.floats(dy), backend.floats(x)] as const;
  const statistics = [backend.floatsOrNull(mean), backend.floats(rstd)] as const;
  return backend.made([N], (dw) => backend.addon.layerNormGradWeight(...operands, ...statistics, dw, M, N));
}

type Made = ReturnType<NativeBackend['allocate']>;

/** The first arguments of both directions of packed attention, and the length of the longest row. */
function packedArguments(
  { q, k, v }: KernelInputs<'NnPackedAttention', TensorInfo>,
  { packing, numHeads, scale, dropoutRate, key0, key1 }: KernelAttrs<'NnPackedAttention'>,
  backend: NativeBackend,
) {
  const { prefixes, prefixLength, pictures, starts } = packing;
  const [N, D] = matrix('NnPackedAttention', 'q', q);
  expectShape('NnPackedAttention', 'k', k, [N, D]);
  expectShape('NnPackedAttention', 'v', v, [N, D]);
  const texts = Array.from(pictures, (_, b) => starts[b + 1]! - starts[b]!);
  const lse = [pictures.length, numHeads, prefixLength + Math.max(0, ...texts)];
  const sizes = [prefixLength, prefixes, pictures, starts, D, numHeads, scale] as const;
  const arrays = [backend.floats(q), backend.floats(k), backend.floats(v)] as const;
  return { args: [...sizes, dropoutRate, key0, key1, ...arrays] as const, lse };
}

/** Kernels without a C++ version: they run as compositions of tfjs's kernels. */
type Composed = never;

export const nnKernels: { [N in Exclude<KernelName, Composed>]: NnKernel<N> } = {
  NnLinear({ x, weight, bias, residual }, { activation, preciseInput }, backend) {
    const [, K] = rowsOf('NnLinear', 'x', x);
    expectShape('NnLinear', 'weight', weight, [weight.shape[0]!, K]);
    const factors = preciseInput && backend.roundingFactors(weight);
    if (factors) return timesInParts(x, weight, factors, backend);
    return backend.timesWeight(x, weight, true, { bias, activation, residual });
  },

  NnLinearGradInput({ dy, weight }, _attrs, backend) {
    const [, K] = rowsOf('NnLinearGradInput', 'dy', dy);
    expectShape('NnLinearGradInput', 'weight', weight, [K, weight.shape[1]!]);
    return backend.timesWeight(dy, weight, false);
  },

  NnLinearGradWeight({ dy, x }, _attrs, backend) {
    expectShape('NnLinearGradWeight', 'x', x, [...dy.shape.slice(0, -1), x.shape[x.shape.length - 1]!]);
    return transposedMatmul(dy, x, backend);
  },

  ...loraKernels,

  NnSumRows({ x }, _attrs, backend) {
    const [M, N] = rowsOf('NnSumRows', 'x', x);
    return backend.made([N], (y) => backend.addon.sumRows(backend.floats(x), y, M, N));
  },

  NnLayerNorm({ x, weight, bias }, { eps }, backend) {
    const [M, N] = rowsOf('NnLayerNorm', 'x', x);
    const y = backend.allocate(x.shape);
    const mean = backend.allocate([M]);
    const rstd = backend.allocate([M]);
    const parameters = [backend.floats(weight), backend.floats(bias), eps] as const;
    backend.addon.layerNorm(backend.floats(x), ...parameters, y.values, mean.values, rstd.values, M, N);
    return [y.info, mean.info, rstd.info];
  },

  NnLayerNormGradInput: (inputs, _attrs, backend) => normGradInput('NnLayerNormGradInput', inputs, backend),

  NnLayerNormGradWeight: (inputs, _attrs, backend) =>
    normGradWeight('NnLayerNormGradWeight', inputs, backend),

  NnRmsNorm({ x, weight }, { eps }, backend) {
    const [M, N] = rowsOf('NnRmsNorm', 'x', x);
    const [y, rstd] = [backend.allocate(x.shape), backend.allocate([M])];
    const w = backend.floats(weight);
    backend.addon.layerNorm(backend.floats(x), w, null, eps, y.values, null, rstd.values, M, N);
    return [y.info, rstd.info];
  },

  NnRmsNormGradInput: (inputs, _attrs, backend) => normGradInput('NnRmsNormGradInput', inputs, backend),

  NnRmsNormGradWeight: (inputs, _attrs, backend) => normGradWeight('NnRmsNormGradWeight', inputs, backend),

  NnGelu: ({ x }, _attrs, backend) => backend.made(x.shape, (y) => backend.addon.gelu(backend.floats(x), y)),

  NnGeluGrad: ({ dy, x }, _attrs, backend) =>
    backend.made(x.shape, (dx) => backend.addon.geluGrad(backend.floats(dy), backend.floats(x), dx)),

  NnGatedGelu: ({ gate, x }, _attrs, backend) =>
    backend.made(x.shape, (y) => backend.addon.gatedGelu(backend.floats(gate), backend.floats(x), y)),

  NnGatedGeluGrad({ dy, gate, x }, _attrs, backend) {
    const [dgate, dx] = [backend.allocate(x.shape), backend.allocate(x.shape)];
    const operands = [backend.floats(dy), backend.floats(gate), backend.floats(x)] as const;
    backend.addon.gatedGeluGrad(...operands, dgate.values, dx.values);
    return [dgate.info, dx.info];
  },

  NnRelu({ x }, _attrs, backend) {
    const y = backend.allocate(x.shape);
    const positive = backend.allocateFlags(x.shape);
    backend.addon.relu(backend.floats(x), y.values, positive.values);
    return [y.info, positive.info];
  },

  NnReluGrad: ({ dy, positive }, _attrs, backend) =>
    backend.made(dy.shape, (dx) => backend.addon.reluGrad(backend.floats(dy), backend.flags(positive), dx)),

  NnAttention(inputs, attrs, backend) {
    const args = attentionArguments('NnAttention', inputs, attrs, backend);
    const [B, Tq, , D, H] = args;
    const out = backend.allocate([B, Tq, D]);
    const lse = backend.allocate([B, H, Tq]);
    backend.addon.attention(...args, out.values, lse.values, backend.precision);
    return [out.info, lse.info];
  },

  NnAttentionGrad(inputs, attrs, backend) {
    const args = attentionArguments('NnAttentionGrad', inputs, attrs, backend);
    const [B, Tq, Tk, D] = args;
    const saved = savedArguments('NnAttentionGrad', inputs, args, backend);
    const dq = backend.allocate([B, Tq, D]);
    const dk = backend.allocate([B, Tk, D]);
    const dv = backend.allocate([B, Tk, D]);
    backend.addon.attentionGrad(...args, ...saved, dq.values, dk.values, dv.values, backend.precision);
    return [dq.info, dk.info, dv.info];
  },

  NnAttentionGradBias(inputs, attrs, backend) {
    const args = attentionArguments('NnAttentionGradBias', inputs, attrs, backend);
    const saved = savedArguments('NnAttentionGradBias', inputs, args, backend);
    return backend.made(inputs.bias.shape, (dbias) =>
      backend.addon.attentionGradBias(...args, ...saved, dbias, backend.precision),
    );
  },

  NnPackedAttention(inputs, attrs, backend) {
    const { args, lse: shape } = packedArguments(inputs, attrs, backend);
    const [out, lse] = [backend.allocate(inputs.q.shape), backend.allocate(shape)];
    backend.addon.packedAttention(...args, out.values, lse.values, backend.precision);
    return [out.info, lse.info];
  },

  NnPackedAttentionGrad(inputs, attrs, backend) {
    const { args, lse: shape } = packedArguments(inputs, attrs, backend);
    const { q, out, lse, dout } = inputs;
    expectShape('NnPackedAttentionGrad', 'out', out, q.shape);
    expectShape('NnPackedAttentionGrad', 'lse', lse, shape);
    expectShape('NnPackedAttentionGrad', 'dout', dout, q.shape);
    const saved = [backend.floats(out), backend.floats(lse), backend.floats(dout)] as const;
    const [dq, dk, dv] = [q, q, q].map(({ shape }) => backend.allocate(shape)) as [Made, Made, Made];
    const made = [dq.values, dk.values, dv.values] as const;
    backend.addon.packedAttentionGrad(...args, ...saved, ...made, backend.precision);
    return [dq.info, dk.info, dv.info];
  },

  NnPagedAttention(inputs, { numHeads, scale, causal, rows }, backend) {
    const { q, keyMask, bias, keys, values } = inputs;
    const [B, Tq, D] = q.shape as [number, number, number];
    const lengths = keys.map(({ shape }) => shape[1]!);
    const [ks, vs] = [keys.map((k) => backend.floats(k)), values.map((v) => backend.floats(v))];
    const Tk = lengths.reduce((sum, T) => sum + T, 0);
    if (bias) expectBias('NnPagedAttention', bias, [B, numHeads, Tq, Tk]);
    const optional = [backend.floatsOrNull(keyMask), backend.floatsOrNull(bias)] as const;
    const call = [B, Tq, D, numHeads, scale, causal, backend.floats(q)] as const;
    return backend.made([B, Tq, D], (out) =>
      backend.addon.pagedAttention(...call, lengths, ks, vs, rows, ...optional, out),
    );
  },

  NnDecoderLayers: decoderLayers,

  NnEncoderLayers: encoderLayers,

  NnGatherRows({ x, indices }, _attrs, backend) {
    const [rows, D] = matrix('NnGatherRows', 'x', x);
    const stored = backend.stored(x);
    return backend.made([indices.shape[0]!, D], (y) => {
      if (stored) backend.addon.storedRows(stored.handle, backend.ints(indices), y);
      else backend.addon.gatherRows(backend.floats(x), backend.ints(indices), y, rows, D);
    });
  },

  NnScatterAddRows({ dy, indices }, { rows }, backend) {
    const D = matrix('NnScatterAddRows', 'dy', dy)[1];
    return backend.made([rows, D], (dx) =>
      backend.addon.scatterAddRows(backend.floats(dy), backend.ints(indices), dx, rows, D),
    );
  },

  ...lossKernels,

  NnDropout: ({ x }, { rate, key0, key1 }, backend) =>
    backend.made(x.shape, (y) => backend.addon.dropout(backend.floats(x), y, rate, key0, key1, false)),

  NnSquaredSum({ xs }, _attrs, backend) {
    const arrays = xs.map((x) => backend.floats(x));
    return backend.made([], (y) => backend.addon.squaredSum(arrays, y));
  },

  NnAdamW({ scale, params, grads, m, v }, { lr, beta1, beta2, eps, weightDecays, c1, c2 }, backend) {
    const tensors = params.flatMap((param, i) => [param, grads[i]!, m[i]!, v[i]!]);
    const updated = [params, m, v].map((list) => list.map(({ shape }) => backend.allocate(shape)));
    backend.addon.adamW(
      tensors.map((tensor) => backend.floats(tensor)),
      params.flatMap((_, i) => updated.map((list) => list[i]!.values)),
      backend.floats(scale),
      weightDecays,
      lr,
      beta1,
      beta2,
      eps,
      c1,
      c2,
    );
    return updated.flat().map(({ info }) => info);
  },
};
