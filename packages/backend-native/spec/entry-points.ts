/** Valid arguments of every function of the addon that computes, with small sizes of which none is a multiple of a vector's width. */
import type { NativeAddon } from '../src/addon';
import { numbers } from './fixtures';

/** Fresh arguments at each call: the name of a function → its arguments. */
export function entryPoints(addon: NativeAddon): Record<string, () => unknown[]> {
  const [M, N, K] = [5, 19, 21];
  const [B, Tq, Tk, D, H] = [2, 3, 4, 6, 2];
  let seed = 0;
  const f = (...shape: number[]) => numbers(product(shape), 1 + (seed++ % 31));
  const weight = () => addon.storeWeight('F32', N, K, [{ bytes: new Uint8Array(f(N, K).buffer) }], false);
  const int8 = () => {
    const [blocks, scales] = [new Uint8Array(1024), new Float32Array(N)];
    addon.quantise(weight(), f(K).fill(1), blocks, scales);
    const bytes = [blocks, new Uint8Array(scales.buffer), new Uint8Array(f(K).fill(1).buffer)];
    return addon.storeWeight(
      'INT8',
      N,
      K,
      bytes.map((part) => ({ bytes: part })),
      false,
    );
  };
  const labels = () => Int32Array.of(0, 3, -100, 1, N - 1);
  const attention = () => [
    ...[B, Tq, Tk, D, H, 0.5, true, 0.25, 3, 4],
    ...[f(B, Tq, D), f(B, Tk, D), f(B, Tk, D), new Float32Array(B * Tk).fill(1), f(1, H, Tq, Tk)],
    ...[f(B, Tq, D), f(B, H, Tq)],
  ];
  // two prefixes of two positions, and texts of two, one and two
  const packed = () => [
    ...[2, 2, Int32Array.of(1, 0, 1), Int32Array.of(4, 6, 7, 9), D, H, 0.5, 0.25, 3, 4],
    ...[f(9, D), f(9, D), f(9, D), f(9, D), f(3, H, 4)],
  ];
  const loss = (...outputs: unknown[]) => [f(M, K), f(N, K), labels(), 0.1, ...outputs, M, K, N, 'float32'];
  return {
    gemm: () => [f(2, K, M), true, f(K, N), false, f(N), f(2, M, N), 2, M, N, K, false, true, 'float32'],
    gemmAdd: () => [f(M, K), f(N, K), true, f(M, N), M, N, K, 'float32'],
    packedLength: () => [N, K, 'float32'],
    pack: () => [f(N, K), true, f(addon.packedLength(N, K)), N, K, 'float32'],
    timesPacked: () => {
      const packed = f(addon.packedLength(N, K));
      addon.pack(f(N, K), true, packed, N, K);
      return [f(M, K), packed, f(N), 'gelu', f(M, N), f(M, N), M, N, K, 'float32'];
    },
    timesWeight: () => {
      const [w, precision] = seed % 2 ? [f(N, K), 'float32'] : [int8(), 'int8'];
      return [f(M, K), w, true, f(N), 'relu', f(M, N), f(M, N), M, N, K, precision];
    },
    quantise: () => [weight(), f(K).fill(0.5), new Uint8Array(1024), f(N)],
    columnMaxima: () => [seed % 2 ? weight() : f(M, K), f(K)],
    dropPages: () => [weight()],
    quantiseInt4: () => [weight(), f(K).fill(0.5), new Uint8Array(1024), new Uint8Array(32), f(N)],
    inputRoot: () => [f(M, K), f(2, K), 0.1, f(K, 256), f(K, K)],
    quantiseGptq: () => {
      const root = f(K, K);
      addon.inputRoot(f(M, K), f(0), 0.1, f(K, 256), root);
      return [
        ...[weight(), f(K).fill(0.5), root, f(N, K + 64)],
        ...[new Uint8Array(1024), new Uint8Array(32), f(N)],
      ];
    },
    storeWeight: () => ['F16', N, K, [{ bytes: new Uint8Array(2 * N * K) }], false],
    releaseStored: () => [weight()],
    storedFloats: () => [weight(), f(N, K)],
    storedRows: () => [weight(), Int32Array.of(0, N - 1), f(2, K)],
    checkFiles: () => [],
    mappedBytes: () => [],
    copiedBytes: () => [],
    attention: () => [...attention(), 'float32'],
    attentionGrad: () => [...attention(), f(B, Tq, D), f(B, Tq, D), f(B, Tk, D), f(B, Tk, D), 'float32'],
    attentionGradBias: () => [...attention(), f(B, Tq, D), f(1, H, Tq, Tk), 'float32'],
    pagedAttention: () => [
      ...[B, 1, D, H, 0.5, true, f(B, D), [2, 1], [f(3, 2, D), f(B, D)], [f(3, 2, D), f(B, D)]],
      ...[[Int32Array.of(2, 0), null], new Float32Array(B * 3).fill(1), f(B, H, 1, 3), f(B, D)],
    ],
    packedAttention: () => [...packed(), 'float32'],
    packedAttentionGrad: () => [...packed(), f(9, D), f(9, D), f(9, D), f(9, D), 'float32'],
    decoderLayers: () => {
      const F = 9;
      const layer = [...Array.from({ length: 4 }, () => [D, D]), [F, D], [D, F]];
      const shapes = [...layer, ...layer];
      const none = new Array<null>(11).fill(null);
      const pages = () => [f(3, 2, D), f(B, D), f(3, 2, D), f(B, D)];
      return [
        ...[[B, 1, D, F, H], f(B, D), Array.from({ length: 8 }, () => f(D)), 1e-5, true, 'relu'],
        ...[
          shapes.map((shape) => f(...shape)),
          shapes.map(([n]) => f(n!)),
          [f(2, D), ...none],
          [f(D, 2), ...none],
        ],
        ...[[0.5, ...new Array(11).fill(0)], new Array(24).fill(0), 0.5],
        ...[[2, 1], pages(), pages(), [Int32Array.of(2, 0), null]],
        ...[new Float32Array(B * 4).fill(1), [f(B, D), f(B, D)], [f(B, D), f(B, D)], f(B, D), 'float32'],
      ];
    },
    encoderLayers: () => {
      const F = 9;
      const layer = [
        [3 * D, D],
        [D, D],
        [F, D],
        [D, F],
      ];
      const shapes = [...layer, ...layer];
      const none = new Array<null>(7).fill(null);
      const rank = 2;
      return [
        ...[[B, 2, D, F, H], f(B, 2, D), Array.from({ length: 8 }, () => f(D)), 1e-5, 'gelu'],
        ...[shapes.map((shape) => f(...shape)), shapes.map(([n]) => f(n!))],
        ...[
          [f(rank, D), ...none],
          [f(3 * D, rank), ...none],
        ],
        ...[[0.5, ...new Array(7).fill(0)], new Array(16).fill(0), 0.5],
        ...[f(2 * B, 2 * D + Math.max(3 * D, F) + rank + 2 + H), f(B, 2, D), 'float32'],
      ];
    },
    layerNorm: () => [f(M, N), f(N), f(N), 1e-5, f(M, N), f(M), f(M), M, N],
    layerNormGradInput: () => [f(M, N), f(M, N), f(N), f(M), f(M), f(M, N), M, N],
    layerNormGradWeight: () => [f(M, N), f(M, N), f(M), f(M), f(N), M, N],
    gelu: () => [f(N), f(N)],
    geluGrad: () => [f(N), f(N), f(N)],
    gatedGelu: () => [f(N), f(N), f(N)],
    gatedGeluGrad: () => [f(N), f(N), f(N), f(N), f(N)],
    relu: () => [f(N), f(N), new Uint8Array(N)],
    reluGrad: () => [f(N), new Uint8Array(N).fill(1), f(N)],
    binary: () => [3, f(M, N), [N, 1], f(N), [0, 1], [M, N], f(M, N)],
    copy: () => [f(M, N), 2, [N, 1], f(M, N), 1, [1, M], [M - 1, N - 2]],
    dropout: () => [f(N), f(N), 0.5, 1, 2, true],
    sumRows: () => [f(M, N), f(N), M, N],
    sumColumns: () => [f(M, N), f(M), M, N],
    squaredSum: () => [[f(M), f(N)], f(1)],
    gatherRows: () => [f(M, N), Int32Array.of(4, 0, 4), f(3, N), M, N],
    scatterAddRows: () => [f(3, N), Int32Array.of(4, 0, 4), f(M, N), M, N],
    crossEntropy: () => [f(M, N), labels(), 0.1, f(1), f(M), M, N],
    crossEntropyGrad: () => [f(M, N), labels(), f(M), f(1), 0.1, f(M, N), M, N],
    linearCrossEntropy: () => loss(f(1), f(M)),
    linearCrossEntropyGradInput: () => loss(f(M), f(1), f(M, K)),
    linearCrossEntropyGradWeight: () => loss(f(M), f(1), f(N, K)),
    adamW: () => {
      const each = (count: number) => [M, N].flatMap((n) => Array.from({ length: count }, () => f(n)));
      return [each(4), each(3), f(1), [0, 0.1], 1e-3, 0.9, 0.999, 1e-8, 0.1, 0.001];
    },
    philox: () => [Int32Array.of(1, 2, 3, 4), 5, 6],
  };
}

function product(shape: number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}
