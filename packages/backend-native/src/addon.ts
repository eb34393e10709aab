import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Activation, Encoding, Precision, Span } from '@blip2/nn';

export type Floats = Float32Array;
type Words = Float32Array | Int32Array | Uint32Array;

/** A stored weight; only the addon can read it. */
export type StoredHandle = object & { readonly stored: unique symbol };

/** The first arguments of both directions of attention. */
type AttentionArguments = [
  ...[B: number, Tq: number, Tk: number, D: number, numHeads: number, scale: number, causal: boolean],
  ...[
    dropoutRate: number,
    key0: number,
    key1: number,
    q: Floats,
    k: Floats,
    v: Floats,
    keyMask: Floats | null,
    bias: Floats | null,
  ],
];

/** The first arguments of both directions of packed attention. */
type PackedArguments = [
  ...[prefixLength: number, prefixes: number, pictures: Int32Array, starts: Int32Array],
  ...[D: number, numHeads: number, scale: number, dropoutRate: number, key0: number, key1: number],
  ...[q: Floats, k: Floats, v: Floats],
];

/**
 * The linears of many layers: an entry for each, null for what it does not have. `packed`: whether each weight, and then each lora_A, is an
 * array that `pack` filled.
 */
export type LinearArguments = [
  ...[weights: (Floats | StoredHandle)[], biases: (Floats | null)[]],
  ...[lora_A: (Floats | null)[], lora_B: (Floats | null)[], scalings: number[], packed: (0 | 1)[]],
];

type Epilogue = [bias: Floats | null, activation: Activation | 'none', residual: Floats | null];
type Sizes = [M: number, N: number, K: number, precision?: Precision];

/** `gradient` is dx [M, D] or dweight [V, D]. */
type LinearLossGradient = [
  ...[x: Floats, weight: Floats | StoredHandle, labels: Int32Array, labelSmoothing: number],
  ...[lse: Floats, dloss: Floats],
  ...[gradient: Floats, M: number, D: number, V: number, precision?: Precision],
];

/** The C++ addon (native/binding.cc). Outputs are arguments; C++ checks every length. `precision` is float32 by default. */
export interface NativeAddon {
  /** c [batch, M, N] = a · b + bias. If transposed, a is [K, M] and b [N, K]; a repeated operand has no batch axis. */
  gemm(
    ...args: [
      ...[a: Floats, aTransposed: boolean, b: Floats, bTransposed: boolean, bias: Floats | null, c: Floats],
      ...[batch: number, M: number, N: number, K: number, aRepeats: boolean, bRepeats: boolean],
      precision?: Precision,
    ]
  ): void;
  /** c [M, N] += a [M, K] · b [K, N] or, transposed, [N, K]. */
  gemmAdd(...args: [a: Floats, b: Floats, bTransposed: boolean, c: Floats, ...Sizes]): void;
  /** The length of the array that `pack` fills from b [K, N]. @throws if this processor does not support the precision */
  packedLength(N: number, K: number, precision?: Precision): number;
  /** Packs b for `timesPacked` in the same precision. */
  pack(
    ...args: [b: Floats, bTransposed: boolean, packed: Floats, N: number, K: number, precision?: Precision]
  ): void;
  /**
   * y [M, N] = activation(x [M, K] · weight [K, N] or, transposed, weightᵀ [N, K] + bias) + residual [M, N].
   * A stored weight is read in place.
   */
  timesWeight(
    ...args: [x: Floats, weight: Floats | StoredHandle, transposed: boolean, ...Epilogue, y: Floats, ...Sizes]
  ): void;
  /** Bit for bit the same result as `timesWeight` with the unpacked weight. */
  timesPacked(...args: [x: Floats, packed: Floats, ...Epilogue, y: Floats, ...Sizes]): void;
  /**
   * Makes a stored weight. A file is memory-mapped; bytes in memory are copied. One span per part of the encoding, see `spansOf`.
   * `rounded` also makes a bfloat16 copy for matmul.
   */
  storeWeight(
    encoding: Encoding['kind'],
    rows: number,
    columns: number,
    spans: readonly Span[],
    rounded: boolean,
  ): StoredHandle;
  /** The INT8 encoding of a stored weight [rows, columns]: blocks, scales [rows], with given factors [columns]. */
  quantise(stored: StoredHandle, factors: Floats, blocks: Uint8Array, scales: Floats): void;
  /** The largest magnitude of each column, infinite or NaN if it has such a number: y [K] of x [M, K]. */
  columnMaxima(x: Floats | StoredHandle, y: Floats): void;
  /** Takes the pages of a memory-mapped weight out of this process's memory until it is used again. */
  dropPages(stored: StoredHandle): void;
  /** The INT4 encoding likewise: codes, steps and scales. */
  quantiseInt4(
    stored: StoredHandle,
    factors: Floats,
    codes: Uint8Array,
    steps: Uint8Array,
    scales: Floats,
  ): void;
  /**
   * The root [K, K] of inputs x [M, K] without the rows leftOut [L, K]: see input_root.cc. The room has K · max(256, L) numbers. 0 if
   * there is none, else 1.
   */
  inputRoot(x: Floats, leftOut: Floats, damping: number, room: Floats, root: Floats): 0 | 1;
  /** The INT4 encoding by GPTQ, with the root [columns, columns] of its inputs. The room has rows · (columns + 64) numbers. */
  quantiseGptq(
    ...args: [
      ...[stored: StoredHandle, factors: Floats, root: Floats, room: Floats],
      ...[codes: Uint8Array, steps: Uint8Array, scales: Floats],
    ]
  ): void;
  /** Frees it now; otherwise it is freed when the handle is garbage-collected. */
  releaseStored(stored: StoredHandle): void;
  /** All numbers as float32, exactly. */
  storedFloats(stored: StoredHandle, y: Floats): void;
  storedRows(stored: StoredHandle, indices: Int32Array, y: Floats): void;
  /** @throws naming the first memory-mapped file that was rewritten since it was opened */
  checkFiles(): void;
  /** Bytes of memory-mapped files. */
  mappedBytes(): number;
  /** Bytes of copies in memory. */
  copiedBytes(): number;
  attention(...args: [...AttentionArguments, out: Floats, lse: Floats, precision?: Precision]): void;
  /** Keys and values of page i are [rows, lengths[i], D]; item b reads row rows[i][b], or row b where that is null. */
  pagedAttention(
    ...args: [
      ...[B: number, Tq: number, D: number, numHeads: number, scale: number, causal: boolean, q: Floats],
      ...[lengths: number[], ks: Floats[], vs: Floats[], rows: (Int32Array | null)[]],
      ...[keyMask: Floats | null, bias: Floats | null, out: Floats],
    ]
  ): void;
  /**
   * Layers of a decoder at new positions (NnDecoderLayers). Lists have layer after layer: norms four of each, those about linears one entry
   * for each of q, k, v, out, fc1 and fc2; ks and vs those of each page.
   */
  decoderLayers(
    ...args: [
      ...[sizes: [B: number, T: number, D: number, F: number, numHeads: number], x: Floats, norms: Floats[]],
      ...[
        eps: number,
        normFirst: boolean,
        activation: Activation,
        ...linears: LinearArguments,
        scale: number,
      ],
      ...[lengths: number[], ks: Floats[], vs: Floats[], rows: (Int32Array | null)[], keyMask: Floats | null],
      ...[newKs: Floats[], newVs: Floats[], y: Floats, precision?: Precision],
    ]
  ): void;
  /**
   * Layers of an encoder (NnEncoderLayers). Lists as above, about linears with an entry for each of qkv, projection, fc1 and fc2. `room` is
   * for intermediate results: 2·D + max(3·D, F) + largest rank + 2 + numHeads numbers for each of the B·T rows.
   */
  encoderLayers(
    ...args: [
      ...[sizes: [B: number, T: number, D: number, F: number, numHeads: number], x: Floats, norms: Floats[]],
      ...[eps: number, activation: Activation, ...linears: LinearArguments, scale: number],
      ...[room: Floats, y: Floats, precision?: Precision],
    ]
  ): void;
  attentionGrad(
    ...args: [
      ...AttentionArguments,
      ...[out: Floats, lse: Floats, dout: Floats, dq: Floats, dk: Floats, dv: Floats],
      precision?: Precision,
    ]
  ): void;
  attentionGradBias(
    ...args: [
      ...[...AttentionArguments, out: Floats, lse: Floats, dout: Floats, dbias: Floats],
      precision?: Precision,
    ]
  ): void;
  /** Causal attention of packed rows, see NnPackedAttention. Of lse [B, H, T], the places of pads are not written. */
  packedAttention(...args: [...PackedArguments, out: Floats, lse: Floats, precision?: Precision]): void;
  packedAttentionGrad(
    ...args: [
      ...PackedArguments,
      ...[out: Floats, lse: Floats, dout: Floats, dq: Floats, dk: Floats, dv: Floats],
      precision?: Precision,
    ]
  ): void;
  /** Without bias and mean, RMSNorm; likewise in the gradients. */
  layerNorm(
    ...args: [
      ...[x: Floats, weight: Floats, bias: Floats | null, eps: number, y: Floats],
      ...[mean: Floats | null, rstd: Floats, M: number, N: number],
    ]
  ): void;
  layerNormGradInput(
    ...args: [
      ...[dy: Floats, x: Floats, weight: Floats, mean: Floats | null, rstd: Floats, dx: Floats],
      ...[M: number, N: number],
    ]
  ): void;
  layerNormGradWeight(
    ...args: [
      ...[dy: Floats, x: Floats, mean: Floats | null, rstd: Floats, dweight: Floats],
      ...[M: number, N: number],
    ]
  ): void;
  gelu(x: Floats, y: Floats): void;
  geluGrad(dy: Floats, x: Floats, dx: Floats): void;
  /** y = gelu_new(gate)·x, with the tanh approximation of GELU. */
  gatedGelu(gate: Floats, x: Floats, y: Floats): void;
  gatedGeluGrad(dy: Floats, gate: Floats, x: Floats, dgate: Floats, dx: Floats): void;
  relu(x: Floats, y: Floats, positive: Uint8Array): void;
  reluGrad(dy: Floats, positive: Uint8Array, dx: Floats): void;
  /** op is an index of `binaryOps`; strides count elements, 0 repeats; y is contiguous. */
  binary(
    ...args: [
      ...[op: number, a: Floats, aStrides: number[], b: Floats, bStrides: number[]],
      ...[shape: number[], y: Floats],
    ]
  ): void;
  copy(
    ...args: [
      ...[from: Words, fromOffset: number, fromStrides: number[]],
      ...[to: Words, toOffset: number, toStrides: number[], shape: number[]],
    ]
  ): void;
  /** y = or, with `add`, += the kept elements of x, scaled. */
  dropout(x: Floats, y: Floats, rate: number, key0: number, key1: number, add: boolean): void;
  sumRows(x: Floats, y: Floats, M: number, N: number): void;
  sumColumns(x: Floats, y: Floats, M: number, N: number): void;
  /** y[0] = Σ over the arrays of the float32 sum of their squares. */
  squaredSum(xs: Floats[], y: Floats): void;
  gatherRows(x: Floats, indices: Int32Array, y: Floats, rows: number, D: number): void;
  scatterAddRows(dy: Floats, indices: Int32Array, dx: Floats, rows: number, D: number): void;
  crossEntropy(
    ...args: [
      ...[logits: Floats, labels: Int32Array, labelSmoothing: number, loss: Floats, lse: Floats],
      ...[M: number, V: number],
    ]
  ): void;
  crossEntropyGrad(
    ...args: [
      ...[logits: Floats, labels: Int32Array, lse: Floats, dloss: Floats, labelSmoothing: number],
      ...[dlogits: Floats, M: number, V: number],
    ]
  ): void;
  /** Cross-entropy of x [M, D] · weightᵀ, weight [V, D], computed without holding all scores in memory. */
  linearCrossEntropy(
    ...args: [
      ...[x: Floats, weight: Floats | StoredHandle, labels: Int32Array, labelSmoothing: number],
      ...[loss: Floats, lse: Floats, M: number, D: number, V: number, precision?: Precision],
    ]
  ): void;
  linearCrossEntropyGradInput(...args: LinearLossGradient): void;
  linearCrossEntropyGradWeight(...args: LinearLossGradient): void;
  /** `tensors`: param, grad, m and v of each parameter in turn; `updated`: new param, m and v of each. */
  adamW(
    ...args: [
      ...[tensors: Floats[], updated: Floats[], scale: Floats, weightDecays: number[]],
      ...[lr: number, beta1: number, beta2: number, eps: number, c1: number, c2: number],
    ]
  ): void;
  /** Replaces a counter of four words by the output of Philox4x32-10. */
  philox(words: Int32Array, key0: number, key1: number): void;
  setThreads(count: number): void;
  setInstructionSet(name: string): void;
  /** The levels that this processor supports, slowest first, separated by spaces. */
  instructionSets(): string;
  instructionSet(): string;
}

export const binaryOps = ['Add', 'Sub', 'Multiply', 'RealDiv', 'Maximum', 'Minimum'] as const;

const compiled = fileURLToPath(new URL('../build/blip2_native.node', import.meta.url));
/** The package with the compiled addon for this platform (made by prebuild.mjs). */
const prebuilt = `@blip2/backend-native-${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
const require = createRequire(import.meta.url);

/** Linux without glibc needs a different binary. */
function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime === undefined;
}

/** Where the addon came from: BLIP2_NATIVE_ADDON, this package's build folder, or the package for this platform. */
export type AddonOrigin = 'from BLIP2_NATIVE_ADDON' | 'compiled here' | 'prebuilt';

/** The first that exists in this order, since an addon compiled on this machine may be newer than an installed one. */
function findAddon(): { file: string; origin: AddonOrigin } | undefined {
  const file = process.env.BLIP2_NATIVE_ADDON;
  if (file) return { file, origin: 'from BLIP2_NATIVE_ADDON' };
  if (existsSync(compiled)) return { file: compiled, origin: 'compiled here' };
  try {
    return { file: require.resolve(`${prebuilt}/blip2_native.node`), origin: 'prebuilt' };
  } catch {
    return undefined; // not installed
  }
}

export type LoadedAddon =
  | { addon: NativeAddon; threads: number; origin: AddonOrigin; why?: undefined }
  | { addon?: undefined; why: string };

/** Loads the addon. It uses BLIP2_NUM_THREADS threads, by default one per core. */
export function loadAddon(): LoadedAddon {
  const found = findAddon();
  if (!found) {
    const how = `install g++ or clang++ and run \`npm rebuild @blip2/backend-native --foreground-scripts\``;
    return { why: `the C++ addon is not built and ${prebuilt} is not installed: ${how}` };
  }
  const requested = process.env.BLIP2_NUM_THREADS;
  const threads = requested ? Number(requested) : availableParallelism();
  if (!Number.isInteger(threads) || threads < 1)
    return { why: `BLIP2_NUM_THREADS: expected a whole number from 1, found '${requested}'` };
  try {
    const addon = require(found.file) as NativeAddon;
    addon.setThreads(threads);
    return { addon, threads, origin: found.origin };
  } catch (error) {
    return { why: `the C++ addon (${found.origin}) does not load: ${(error as Error).message}` };
  }
}
