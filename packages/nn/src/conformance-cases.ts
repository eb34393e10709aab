/** The cases of the conformance suite: ops as functions of tensors with unequal, odd sizes. Together they run every kernel. */
import type { Tensor, Tensor1D, Tensor2D, Tensor3D, Tensor4D } from '@tensorflow/tfjs-core';
import { runKernel } from './kernel-door';
import * as nn from './ops';
import { fold, normal, rngKey } from './rng';

export interface ConformanceCase {
  f: (...xs: never[]) => Tensor;
  xs: () => Tensor[];
  /** `f` has no gradient. */
  forwardOnly?: true;
}

/** A reproducible tensor of unit scale. */
export function random<T extends Tensor = Tensor>(name: string, ...shape: number[]): T {
  const size = shape.reduce((a, b) => a * b, 1);
  return nn.tensor<T>(normal(fold(rngKey(7), name), size), shape);
}

/** Many numbers of one sign: added one after the other in float32, they lose digits at the fourth place. */
const long = <T extends Tensor = Tensor>(...shape: number[]): T => {
  const size = shape.reduce((a, b) => a * b, 1);
  return nn.tensor<T>(
    Float32Array.from({ length: size }, (_, i) => (i % 2 ? 0.1 : 0.3)),
    shape,
  );
};

const a = () => random('a', 2, 3, 4);
const positive = (...shape: number[]) => nn.add(nn.exp(random('b', ...shape)), nn.tensor([0.5], []));

const linear = () => [random('x', 2, 3, 5), random('w', 7, 5), random('b', 7)];
const residual = () => random('r', 2, 3, 7);
const lora = () => [random('A', 2, 5), random('B', 7, 2)];
const adapter = (A: Tensor2D, B: Tensor2D, dropout: number): nn.LoraPart => ({
  lora_A: { weight: A },
  lora_B: { weight: B },
  scaling: 2,
  dropout,
});
const activated = (activation: 'gelu' | 'relu'): ConformanceCase => ({
  f: (x: Tensor, weight: Tensor2D, bias: Tensor1D) => nn.activatedLinear(activation, { weight, bias }, x),
  xs: linear,
});

const qkv = () => [random('q', 2, 3, 6), random('k', 2, 5, 6), random('v', 2, 5, 6)];
const keyMask = () => nn.tensor<Tensor2D>([1, 0, 1, 1, 1, 1, 1, 0, 0, 1], [2, 5]);
const masked = () => ({ keyMask: keyMask(), causal: true, dropout: { rate: 0.3, key: rngKey(5) } });

/** Two prefixes of two positions; texts of 3, 1, 0 and 2 positions, three of which follow the second prefix. */
const packing = {
  prefixes: 2,
  prefixLength: 2,
  pictures: Int32Array.of(1, 0, 1, 1),
  starts: Int32Array.of(4, 7, 8, 8, 10),
};
const plainRows = {
  prefixes: 0,
  prefixLength: 0,
  pictures: Int32Array.of(0, 0),
  starts: Int32Array.of(0, 2, 5),
};
const packed = (N: number) => ['q', 'k', 'v'].map((name) => random(name, N, 6));

const labels = Int32Array.of(2, -100, 5, 0);

/** The tensors of two slots, after an update: each is a parameter, its gradient and its moments. */
function updated(...xs: Tensor[]): Tensor {
  const [p0, g0, m0, v0, p1, g1, m1, v1] = xs.map((x) => nn.variable(x));
  const slots = [
    { param: p0, grad: g0, m: m0, v: v0, weightDecay: 0.1 },
    { param: p1, grad: g1, m: m1, v: v1, weightDecay: 0 },
  ];
  nn.adamW(slots, nn.tensor([0.5], []), { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, step: 2 });
  const all = slots.flatMap(({ param, grad, m, v }) => [param, grad, m, v]);
  const result = nn.concat(
    all.map((x) => nn.reshape(x, [x.size])),
    0,
  );
  nn.dispose(all);
  return result;
}

const slot = (i: number, ...shape: number[]) => [
  ...['p', 'g', 'm'].map((name) => random(name + i, ...shape)),
  positive(...shape),
];

/** x, norms, weights, biases, an adapter, keys and values of a layer of width 6 with 2 heads. */
function layerTensors(): Tensor[] {
  const sizes = [...Array.from({ length: 4 }, () => [6, 6]), [10, 6], [6, 10]];
  const one = (name: string) => random(name, 6);
  return [
    ...[random('x', 3, 1, 6), ...['w1', 'b1', 'w2', 'b2'].map(one)],
    ...sizes.map(([n, m], i) => random(`weight ${i}`, n, m)),
    ...sizes.map(([n], i) => random(`bias ${i}`, n)),
    ...[random('A', 2, 6), random('B', 10, 2)],
    ...[random('k', 2, 4, 6), random('v', 2, 4, 6), random('k2', 3, 1, 6), random('v2', 3, 1, 6)],
  ];
}

/** Two layers after two pages, of which the rows of the first are reordered, and one key is hidden; with norms first, fc1 has an adapter. */
function decoderLayersCase(
  xs: Tensor[],
  normFirst: boolean,
  activation: 'relu' | 'gelu',
  past = true,
): Tensor {
  const [x, w1, b1, w2, b2] = xs;
  const lora = normFirst ? adapter(xs[17] as Tensor2D, xs[18] as Tensor2D, 0) : undefined;
  const linears = Array.from({ length: 6 }, (_, i) => ({
    weight: xs[5 + i],
    ...((normFirst || i > 2) && { bias: xs[11 + i] }),
    ...(i === 4 && { lora }),
  }));
  const [k, v, k2, v2] = xs.slice(19) as Tensor3D[];
  const ofLayers = (k: Tensor3D, v: Tensor3D) => [
    { k, v },
    { k: v, v: k },
  ];
  const pages = [{ layers: ofLayers(k, v), rows: Int32Array.of(1, 1, 0) }, { layers: ofLayers(k2, v2) }];
  const keyMask = past
    ? nn.tensor<Tensor2D>([...[0, 1, 1, 1, 1, 1], ...[1, 1, 1, 1, 1, 1], ...[1, 0, 1, 1, 1, 1]], [3, 6])
    : undefined;
  const norms = [
    { weight: w1, bias: b1 },
    { weight: w2, bias: b2 },
  ];
  const layers = [
    { norms, linears },
    { norms: [...norms].reverse(), linears },
  ] as unknown as nn.DecoderLayer[];
  const made = nn.decoderLayers(layers, x as Tensor3D, past ? pages : [], {
    numHeads: 2,
    eps: 1e-3,
    normFirst,
    activation,
    keyMask,
  });
  return nn.concat([made.x, ...made.layers.flatMap(({ k, v }) => [k, v])], 2);
}

/** Two layers, of which the first has an adapter. */
function encoderLayersCase(xs: Tensor[]): Tensor {
  const [x, w1, b1, w2, b2, ...rest] = xs;
  // Small weights, or the scores of attention are so large that it enlarges every rounding.
  const linears = [0, 1, 2, 3].map((i) => ({ weight: nn.scale(rest[2 * i], 0.2), bias: rest[2 * i + 1] }));
  const lora = adapter(rest[8] as Tensor2D, rest[9] as Tensor2D, 0);
  const norms = [
    { weight: w1, bias: b1 },
    { weight: w2, bias: b2 },
  ];
  const layers = [
    { norms, linears: linears.map((one, i) => (i === 0 ? { ...one, lora } : one)) },
    { norms: [...norms].reverse(), linears },
  ] as unknown as nn.EncoderLayer[];
  return nn.encoderLayers(layers, x as Tensor3D, { numHeads: 2, eps: 1, activation: 'gelu' });
}

const encoderTensors = () => [
  random('x', 2, 5, 6),
  ...[random('w1', 6), random('b1', 6), random('w2', 6), random('b2', 6)],
  ...[
    [18, 6],
    [6, 6],
    [10, 6],
    [6, 10],
  ].flatMap(([n, m], i) => [random(`weight ${i}`, n, m), random(`bias ${i}`, n)]),
  ...[random('A', 2, 6), random('B', 18, 2)],
];

export const conformanceCases: Record<string, ConformanceCase> = {
  add: { f: nn.add, xs: () => [a(), random('row', 1, 3, 4)] },
  sub: { f: nn.sub, xs: () => [a(), random('last', 4)] },
  mul: { f: nn.mul, xs: () => [a(), random('col', 3, 1)] },
  div: { f: nn.div, xs: () => [a(), positive(2, 3, 4)] },
  scale: { f: (x: Tensor) => nn.scale(x, -2.5), xs: () => [a()] },
  exp: { f: nn.exp, xs: () => [a()] },
  log: { f: nn.log, xs: () => [positive(2, 3, 4)] },
  sqrt: { f: nn.sqrt, xs: () => [positive(2, 3, 4)] },
  reshape: { f: (x: Tensor) => nn.reshape(x, [4, 6]), xs: () => [a()] },
  transpose: { f: (x: Tensor) => nn.transpose(x, [2, 0, 1]), xs: () => [a()] },
  concat: { f: (x: Tensor, y: Tensor) => nn.concat([x, y], 1), xs: () => [a(), random('b', 2, 3, 4)] },
  slice: { f: (x: Tensor) => nn.slice(x, [0, 1, 1], [2, 2, -1]), xs: () => [a()] },
  split: { f: (x: Tensor) => nn.concat(nn.split(x, 2, 2).reverse(), 0), xs: () => [a()] },
  tile: { f: (x: Tensor) => nn.tile(x, [2, 3]), xs: () => [random('t', 2, 3)] },
  sum: { f: (x: Tensor) => nn.sum(x, 1), xs: () => [a()] },
  mean: { f: (x: Tensor) => nn.mean(x, -1, true), xs: () => [a()] },
  max: { f: (x: Tensor) => nn.max(x, 1), xs: () => [a()] },
  linear: {
    f: (x: Tensor, weight: Tensor2D, bias: Tensor1D) => nn.linear({ weight, bias }, x),
    xs: linear,
  },
  preciseLinear: {
    f: (x: Tensor, weight: Tensor2D) => nn.preciseLinear({ weight }, x),
    xs: () => linear().slice(0, 2),
  },
  residualLinear: {
    f: (x: Tensor, weight: Tensor2D, bias: Tensor1D, r: Tensor) => nn.residualLinear({ weight, bias }, x, r),
    xs: () => [...linear(), residual()],
  },
  'linear with gelu': activated('gelu'),
  'linear with relu': { ...activated('relu'), forwardOnly: true }, // differences across its kink are no gradient
  'linear with gelu and residual': {
    f: (x: Tensor, weight: Tensor, bias: Tensor, r: Tensor) =>
      runKernel('NnLinear', { x, weight, bias, residual: r }, { activation: 'gelu' }),
    xs: () => [...linear(), residual()],
    forwardOnly: true,
  },
  'linear with LoRA': {
    f: (x: Tensor, weight: Tensor2D, A: Tensor2D, B: Tensor2D) =>
      nn.linear({ weight, lora: adapter(A, B, 0) }, x),
    xs: () => [...linear().slice(0, 2), ...lora()],
  },
  'residualLinear with LoRA and dropout': {
    f: (x: Tensor, weight: Tensor2D, bias: Tensor1D, A: Tensor2D, B: Tensor2D, r: Tensor) =>
      nn.residualLinear({ weight, bias, lora: adapter(A, B, 0.3) }, x, r, { key: rngKey(3) }),
    xs: () => [...linear(), ...lora(), residual()],
  },
  layerNorm: {
    f: (x: Tensor, weight: Tensor1D, bias: Tensor1D) => nn.layerNorm({ weight, bias }, x, 1e-3),
    xs: () => [random('x', 3, 2, 7), random('w', 7), random('b', 7)],
  },
  rmsNorm: {
    f: (x: Tensor, weight: Tensor1D) => nn.rmsNorm({ weight }, x, 1e-3),
    xs: () => [random('x', 3, 2, 7), random('w', 7)],
  },
  gelu: { f: nn.gelu, xs: () => [random('x', 3, 7)] },
  gatedGelu: { f: nn.gatedGelu, xs: () => [random('g', 3, 7), random('x', 3, 7)] },
  relu: { f: nn.relu, xs: () => [nn.tensor([-6, -3, -1.5, -0.5, 0.25, 0.5, 1, 4], [2, 4])] },
  dropout: { f: (x: Tensor) => nn.dropout(x, 0.25, rngKey(11)), xs: () => [random('x', 5, 13)] },
  gatherRows: {
    f: (x: Tensor) => nn.gatherRows(x, Int32Array.of(4, 0, 4, 2)),
    xs: () => [random('x', 6, 3)],
  },
  'gatherRows of one row': {
    f: (x: Tensor) => nn.gatherRows(x, Int32Array.of(0, 0)),
    xs: () => [random('x', 1, 3)],
  },
  attention: {
    f: (q: Tensor3D, k: Tensor3D, v: Tensor3D) => nn.attention(q, k, v, { numHeads: 2, scale: 0.5 }),
    xs: qkv,
  },
  'attention with mask and dropout': {
    f: (q: Tensor3D, k: Tensor3D, v: Tensor3D) => nn.attention(q, k, v, { numHeads: 2, ...masked() }),
    xs: qkv,
  },
  'attention with bias, mask and dropout': {
    f: (q: Tensor3D, k: Tensor3D, v: Tensor3D, bias: Tensor4D) =>
      nn.attention(q, k, v, { numHeads: 2, bias, ...masked() }),
    xs: () => [...qkv(), random('bias', 1, 2, 3, 5)],
  },
  'decoderLayers with norms first, adapters and reordered rows': {
    f: (...xs: Tensor[]) => decoderLayersCase(xs, true, 'relu'),
    xs: layerTensors,
    forwardOnly: true,
  },
  'decoderLayers without pages': {
    f: (...xs: Tensor[]) => decoderLayersCase(xs, true, 'gelu', false),
    xs: layerTensors,
    forwardOnly: true,
  },
  'decoderLayers with norms last and gelu': {
    f: (...xs: Tensor[]) => decoderLayersCase(xs, false, 'gelu'),
    xs: layerTensors,
    forwardOnly: true,
  },
  encoderLayers: { f: (...xs: Tensor[]) => encoderLayersCase(xs), xs: encoderTensors, forwardOnly: true },
  pagedAttention: {
    f: (q: Tensor3D, k0: Tensor3D, v0: Tensor3D, k: Tensor3D, v: Tensor3D, mask: Tensor2D) =>
      nn.pagedAttention(
        q,
        [
          { k: k0, v: v0, rows: Int32Array.of(0, 1, 0) },
          { k, v },
        ],
        {
          numHeads: 2,
          causal: true,
          keyMask: mask,
        },
      ),
    xs: () => [
      random('q', 3, 1, 6),
      ...[random('k0', 2, 2, 6), random('v0', 2, 2, 6), random('k1', 3, 1, 6), random('v1', 3, 1, 6)],
      nn.tensor([1, 1, 1, 0, 1, 1, 1, 1, 1], [3, 3]),
    ],
    forwardOnly: true,
  },
  packedAttention: {
    f: (q: Tensor2D, k: Tensor2D, v: Tensor2D) => nn.packedAttention(q, k, v, packing, { numHeads: 2 }),
    xs: () => packed(10),
  },
  'packedAttention with dropout': {
    f: (q: Tensor2D, k: Tensor2D, v: Tensor2D) =>
      nn.packedAttention(q, k, v, packing, { numHeads: 3, dropout: { rate: 0.3, key: rngKey(5) } }),
    xs: () => packed(10),
  },
  'packedAttention without prefixes': {
    f: (q: Tensor2D, k: Tensor2D, v: Tensor2D) => nn.packedAttention(q, k, v, plainRows, { numHeads: 2 }),
    xs: () => packed(5),
  },
  crossEntropy: {
    f: (logits: Tensor2D) => nn.crossEntropy(logits, labels, 0.1),
    xs: () => [random('logits', 4, 6)],
  },
  linearCrossEntropy: {
    f: (x: Tensor2D, weight: Tensor2D) => nn.linearCrossEntropy({ weight }, x, labels, 0.1),
    xs: () => [random('x', 4, 3), random('w', 6, 3)],
  },
  globalNorm: {
    f: (...xs: Tensor[]) => nn.globalNorm(xs),
    xs: () => [random('a', 5), random('b', 2, 3), random('c')],
    forwardOnly: true,
  },
  'sums of long columns': {
    f: (x: Tensor) => runKernel('NnSumRows', { x }, {}),
    xs: () => [long(30000, 3)],
    forwardOnly: true,
  },
  'layerNorm of long rows': {
    f: (x: Tensor, weight: Tensor1D, bias: Tensor1D) => nn.layerNorm({ weight, bias }, x, 1e-3),
    xs: () => [long(2, 30000), random('w', 30000), random('b', 30000)],
    forwardOnly: true,
  },
  'crossEntropy of long rows': {
    f: (logits: Tensor2D) => nn.crossEntropy(logits, labels, 0.1),
    xs: () => [long(4, 30000)],
    forwardOnly: true,
  },
  'globalNorm of long tensors': {
    f: (...xs: Tensor[]) => nn.globalNorm(xs),
    xs: () => [long(100000), long(100000)],
    forwardOnly: true,
  },
  adamW: { f: updated, xs: () => [...slot(0, 5), ...slot(1, 2, 3)], forwardOnly: true },
};
