/** The inputs of the conformance suite, with unequal, odd sizes. The type requires cases for each kernel. */
import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import { runKernel } from './kernel-door';
import type { KernelAttrs, KernelInputs, KernelName } from './kernels';
import * as nn from './ops';
import { fold, normal, rngKey } from './rng';

export interface KernelCase<K extends KernelName> {
  inputs: () => KernelInputs<K, Tensor>;
  attrs: KernelAttrs<K>;
}

/** A reproducible tensor of unit scale. */
export function random<T extends Tensor = Tensor>(name: string, ...shape: number[]): T {
  const size = shape.reduce((a, b) => a * b, 1);
  return nn.tensor<T>(normal(fold(rngKey(7), name), size), shape);
}

const ints = (...values: number[]) => nn.tensor(Int32Array.from(values), [values.length]);
const plain = { rate: 0, key0: 0, key1: 0 };
const dropped = { rate: 0.3, key0: 11, key1: 12 };
const heads = { numHeads: 2, scale: 0.5, causal: false, dropoutRate: 0, key0: 0, key1: 0 };
const causal = { ...heads, causal: true, dropoutRate: 0.3, key0: 5, key1: 6 };
const keyMask = () => nn.tensor([1, 0, 1, 1, 1, 1, 1, 0, 0, 1], [2, 5]);

const bias = () => random('bias', 1, 2, 3, 5);

const linear = () => ({ x: random('x', 2, 3, 5), weight: random('w', 7, 5) });
const epilogue = () => ({ bias: random('b', 7), residual: random('r', 2, 3, 7) });
const lora = () => ({ lora_A: random('A', 2, 5), lora_B: random('B', 7, 2) });
const dy = () => random('dy', 2, 3, 7);
const low = () => random('low', 2, 3, 2);
const qkv = () => ({ q: random('q', 2, 3, 6), k: random('k', 2, 5, 6), v: random('v', 2, 5, 6) });
const labels = () => ints(2, -100, 5, 0);
const smoothed = { labelSmoothing: 0.1 };

function attended(inputs: KernelInputs<'NnAttention', Tensor>, attrs: KernelAttrs<'NnAttention'>) {
  const [out, lse] = runKernel('NnAttention', inputs, attrs);
  return { ...inputs, out, lse, dout: random('dout', 2, 3, 6) };
}

function lossInputs() {
  const inputs = { x: random('x', 4, 3), weight: random('w', 6, 3), labels: labels() };
  const [, lse] = runKernel('NnLinearCrossEntropy', inputs, smoothed);
  return { ...inputs, lse, dloss: random('dloss') };
}

function normInputs() {
  const inputs = { x: random('x', 2, 3, 5), weight: random('w', 5) };
  const [, mean, rstd] = runKernel('NnLayerNorm', { ...inputs, bias: random('b', 5) }, { eps: 1e-3 });
  return { ...inputs, dy: random('dy', 2, 3, 5), mean, rstd };
}

function rmsInputs() {
  const x = random('x', 2, 3, 5);
  const [, rstd] = runKernel('NnRmsNorm', { x, weight: random('w', 5) }, { eps: 1e-3 });
  return { dy: random('dy', 2, 3, 5), x, rstd };
}

export const kernelCases: { [K in KernelName]: KernelCase<K>[] } = {
  NnLinear: [
    { inputs: linear, attrs: {} },
    { inputs: () => ({ ...linear(), ...epilogue() }), attrs: {} },
    { inputs: () => ({ ...linear(), ...epilogue() }), attrs: { activation: 'gelu' } },
    { inputs: () => ({ ...linear(), bias: random('b', 7) }), attrs: { activation: 'relu' } },
  ],
  NnLinearGradInput: [{ inputs: () => ({ dy: dy(), weight: random('w', 7, 5) }), attrs: {} }],
  NnLinearGradWeight: [{ inputs: () => ({ dy: dy(), x: random('x', 2, 3, 5) }), attrs: {} }],
  NnLoraLinear: [
    { inputs: () => ({ ...linear(), ...lora() }), attrs: { scaling: 2, ...plain } },
    { inputs: () => ({ ...linear(), ...epilogue(), ...lora() }), attrs: { scaling: 2, ...dropped } },
  ],
  NnLoraLinearGradInput: [plain, dropped].map((drop) => ({
    inputs: () => ({ dy: dy(), weight: random('w', 7, 5), ...lora() }),
    attrs: { scaling: 2, ...drop },
  })),
  NnLoraLinearGradA: [plain, dropped].map((drop) => ({
    inputs: () => ({ dy: dy(), x: random('x', 2, 3, 5), lora_B: random('B', 7, 2) }),
    attrs: { scaling: 2, ...drop },
  })),
  NnLoraLinearGradB: [{ inputs: () => ({ dy: dy(), low: low() }), attrs: { scaling: 2, ...plain } }],
  NnSumRows: [{ inputs: () => ({ x: random('x', 2, 3, 5) }), attrs: {} }],
  NnLayerNorm: [
    {
      inputs: () => ({ x: random('x', 2, 3, 5), weight: random('w', 5), bias: random('b', 5) }),
      attrs: { eps: 1e-3 },
    },
  ],
  NnLayerNormGradInput: [{ inputs: normInputs, attrs: {} }],
  NnLayerNormGradWeight: [
    {
      inputs: () => {
        const { dy, x, mean, rstd } = normInputs();
        return { dy, x, mean, rstd };
      },
      attrs: {},
    },
  ],
  NnRmsNorm: [{ inputs: () => ({ x: random('x', 2, 3, 5), weight: random('w', 5) }), attrs: { eps: 1e-3 } }],
  NnRmsNormGradInput: [{ inputs: () => ({ ...rmsInputs(), weight: random('w', 5) }), attrs: {} }],
  NnRmsNormGradWeight: [{ inputs: rmsInputs, attrs: {} }],
  NnGelu: [{ inputs: () => ({ x: random('x', 3, 7) }), attrs: {} }],
  NnGeluGrad: [{ inputs: () => ({ dy: random('dy', 3, 7), x: random('x', 3, 7) }), attrs: {} }],
  NnGatedGelu: [{ inputs: () => ({ gate: random('g', 3, 7), x: random('x', 3, 7) }), attrs: {} }],
  NnGatedGeluGrad: [
    { inputs: () => ({ dy: random('dy', 3, 7), gate: random('g', 3, 7), x: random('x', 3, 7) }), attrs: {} },
  ],
  NnRelu: [{ inputs: () => ({ x: random('x', 3, 7) }), attrs: {} }],
  NnReluGrad: [
    {
      inputs: () => ({
        dy: random('dy', 3, 7),
        positive: runKernel('NnRelu', { x: random('x', 3, 7) }, {})[1],
      }),
      attrs: {},
    },
  ],
  NnAttention: [
    { inputs: qkv, attrs: heads },
    { inputs: () => ({ ...qkv(), keyMask: keyMask() }), attrs: causal },
    { inputs: () => ({ ...qkv(), bias: bias(), keyMask: keyMask() }), attrs: causal },
  ],
  NnAttentionGrad: [
    { inputs: () => attended(qkv(), heads), attrs: heads },
    { inputs: () => attended({ ...qkv(), bias: bias(), keyMask: keyMask() }, causal), attrs: causal },
  ],
  NnAttentionGradBias: [
    { inputs: () => ({ ...attended({ ...qkv(), bias: bias() }, heads), bias: bias() }), attrs: heads },
  ],
  NnPagedAttention: [
    {
      inputs: () => ({
        q: random('q', 3, 1, 6),
        keyMask: nn.tensor([1, 1, 1, 0, 1, 1, 1, 1, 1], [3, 3]),
        keys: [random('k0', 2, 2, 6), random('k1', 3, 1, 6)],
        values: [random('v0', 2, 2, 6), random('v1', 3, 1, 6)],
      }),
      attrs: { numHeads: 2, scale: 0.5, causal: true, rows: [Int32Array.of(0, 1, 0), null] },
    },
  ],
  NnGatherRows: [{ inputs: () => ({ x: random('x', 6, 3), indices: ints(4, 0, 4, 2) }), attrs: {} }],
  NnScatterAddRows: [
    { inputs: () => ({ dy: random('dy', 4, 3), indices: ints(4, 0, 4, 2) }), attrs: { rows: 6 } },
  ],
  NnCrossEntropy: [{ inputs: () => ({ logits: random('x', 4, 6), labels: labels() }), attrs: smoothed }],
  NnCrossEntropyGrad: [
    {
      inputs: () => {
        const inputs = { logits: random('x', 4, 6), labels: labels() };
        const [, lse] = runKernel('NnCrossEntropy', inputs, smoothed);
        return { ...inputs, lse, dloss: random('dloss') };
      },
      attrs: smoothed,
    },
  ],
  NnLinearCrossEntropy: [
    {
      inputs: () => ({ x: random('x', 4, 3), weight: random('w', 6, 3), labels: labels() }),
      attrs: smoothed,
    },
  ],
  NnLinearCrossEntropyGradInput: [{ inputs: lossInputs, attrs: smoothed }],
  NnLinearCrossEntropyGradWeight: [{ inputs: lossInputs, attrs: smoothed }],
  NnDropout: [{ inputs: () => ({ x: random('x', 5, 13) }), attrs: dropped }],
  NnSquaredSum: [{ inputs: () => ({ xs: [random('a', 5), random('b', 2, 3), random('c')] }), attrs: {} }],
  NnAdamW: [
    {
      inputs: () => {
        const list = (name: string) => [random(`${name}0`, 5), random(`${name}1`, 2, 3)];
        const v = list('v').map((x) => nn.mul(x, x));
        return { scale: nn.tensor([0.5], []), params: list('p'), grads: list('g'), m: list('m'), v };
      },
      attrs: { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weightDecays: [0.1, 0], c1: 0.19, c2: 0.02 },
    },
  ],
};

type GradientCase = [f: (...xs: Tensor[]) => Tensor, xs: () => Tensor[]];
const a = () => random('a', 2, 3, 4);
const positive = () => nn.add(nn.exp(random('b', 2, 3, 4)), nn.tensor([0.5], []));
const withLora = (x: Tensor, A: Tensor, B: Tensor) =>
  nn.linear(
    {
      weight: random('w', 4, 5),
      lora: {
        lora_A: { weight: A as Tensor2D },
        lora_B: { weight: B as Tensor2D },
        scaling: 2,
        dropout: 0.3,
      },
    },
    x,
    rngKey(3),
  );

/** Ops with the tensors that they are differentiated with respect to. */
export const gradientCases: Record<string, GradientCase> = {
  add: [(a, b) => nn.add(a, b), () => [a(), random('row', 1, 3, 4)]],
  sub: [(a, b) => nn.sub(a, b), () => [a(), random('last', 4)]],
  mul: [(a, b) => nn.mul(a, b), () => [a(), random('col', 3, 1)]],
  div: [(a, b) => nn.div(a, b), () => [a(), positive()]],
  scale: [(a) => nn.scale(a, -2.5), () => [a()]],
  exp: [(a) => nn.exp(a), () => [a()]],
  log: [(x) => nn.log(x), () => [positive()]],
  sqrt: [(x) => nn.sqrt(x), () => [positive()]],
  reshape: [(a) => nn.reshape(a, [4, 6]), () => [a()]],
  transpose: [(a) => nn.transpose(a, [2, 0, 1]), () => [a()]],
  concat: [(a, b) => nn.concat([a, b], 1), () => [a(), random('b', 2, 3, 4)]],
  slice: [(a) => nn.slice(a, [0, 1, 1], [2, 2, -1]), () => [a()]],
  split: [(a) => nn.concat(nn.split(a, 2, 2).reverse(), 0), () => [a()]],
  tile: [(x) => nn.tile(x, [2, 3]), () => [random('t', 2, 3)]],
  sum: [(a) => nn.sum(a, 1), () => [a()]],
  mean: [(a) => nn.mean(a, -1, true), () => [a()]],
  max: [(a) => nn.max(a, 1), () => [a()]],
  linear: [
    (x, weight, bias) => nn.linear({ weight: weight as Tensor2D, bias: bias as Tensor1D }, x),
    () => [random('x', 2, 3, 5), random('w', 4, 5), random('b', 4)],
  ],
  'linear with LoRA': [withLora, () => [random('x', 2, 3, 5), random('A', 2, 5), random('B', 4, 2)]],
  layerNorm: [
    (x, weight, bias) => nn.layerNorm({ weight: weight as Tensor1D, bias: bias as Tensor1D }, x, 1e-3),
    () => [random('x', 3, 2, 7), random('w', 7), random('b', 7)],
  ],
  rmsNorm: [
    (x, weight) => nn.rmsNorm({ weight: weight as Tensor1D }, x, 1e-3),
    () => [random('x', 3, 2, 7), random('w', 7)],
  ],
  gatedGelu: [(gate, x) => nn.gatedGelu(gate, x), () => [random('g', 2, 4), random('x', 2, 4)]],
  gelu: [(x) => nn.gelu(x), () => [random('x', 2, 4)]],
  relu: [(x) => nn.relu(x), () => [nn.tensor([-6, -3, -1.5, -0.5, 0.25, 0.5, 1, 4], [2, 4])]],
  gatherRows: [(x) => nn.gatherRows(x, Int32Array.of(4, 0, 4, 2)), () => [random('table', 5, 3)]],
  dropout: [(x) => nn.dropout(x, 0.25, rngKey(11)), () => [random('x', 5, 13)]],
  attention: [
    (q, k, v, bias) =>
      nn.attention(q as Tensor3D, k as Tensor3D, v as Tensor3D, {
        numHeads: 2,
        bias: bias as Tensor4D,
        dropout: { rate: 0.4, key: rngKey(5) },
      }),
    () => [...Object.values(qkv()), bias()],
  ],
  crossEntropy: [
    (logits) => nn.crossEntropy(logits as Tensor2D, Int32Array.of(2, -100, 5, 0), 0.1),
    () => [random('logits', 4, 6)],
  ],
  linearCrossEntropy: [
    (x, weight) =>
      nn.linearCrossEntropy({ weight: weight as Tensor2D }, x as Tensor2D, Int32Array.of(2, -100, 5, 0), 0.1),
    () => [random('x', 4, 3), random('w', 6, 3)],
  ],
};
