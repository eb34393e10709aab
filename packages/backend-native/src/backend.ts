import { totalmem } from 'node:os';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import { engine } from '@tensorflow/tfjs-core';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';
import { weightBits } from '@blip2/nn';
import type { Activation, Precision, StoredWeight, StoringBackend } from '@blip2/nn';
import type { NativeAddon, StoredHandle } from './addon';
import { BufferPool } from './buffer-pool';
import { PackedWeights } from './packed-weights';
import type { StoredEntry } from './stored-weights';
import { encodings, smallestStored, StoredWeights } from './stored-weights';
import { TensorData, TensorStorage } from './tensor-data';

type Values = backend_util.BackendValues;

/** Applied to the result of a matmul: activation(result + bias) + residual. */
export interface Epilogue {
  bias?: TensorInfo;
  activation?: Activation;
  residual?: TensorInfo;
}

/** Columns of a block of the root of inputs (kRootBlock of native/kernels.h). */
const ROOT_BLOCK = 256;

/** tfjs's CPU backend with pooled memory and the C++ addon. Kernels that are not overridden run as on `cpu`. */
export class NativeBackend extends MathBackendCPU implements StoringBackend {
  readonly encodings = encodings;
  private readonly pool = new BufferPool();
  private readonly weights: PackedWeights;
  private readonly storedWeights: StoredWeights;
  /** Precision of matmuls: int8 for int4. It is read at each call, so it cannot change within a synchronous computation. */
  precision: Precision = 'float32';

  /** @param packedLimit most bytes of packed weights; by default a quarter of the machine's memory */
  constructor(
    readonly addon: NativeAddon,
    packedLimit = totalmem() / 4,
  ) {
    super();
    this.data = new TensorStorage(this, engine());
    this.weights = new PackedWeights(addon, this.pool, packedLimit);
    this.storedWeights = new StoredWeights(addon);
  }

  /** The precisions of matmul that this processor supports. First the fastest that rounds no weights to 8 bits. */
  get precisions(): readonly Precision[] {
    return this.rounds ? ['bfloat16', 'float32', 'int8', 'int4'] : ['float32', 'int8', 'int4'];
  }

  /** Whether this processor multiplies bfloat16. */
  private get rounds(): boolean {
    return ['avx512bf16', 'amx'].includes(this.addon.instructionSet());
  }

  /** Sets the precision of matmuls and frees weights packed in the other one. @throws if this processor does not support it */
  setPrecision(chosen: Precision): void {
    const precision = chosen === 'int4' ? 'int8' : chosen;
    this.addon.packedLength(1, 1, precision); // throws if unsupported
    if (precision !== this.precision) this.weights.clear();
    this.precision = precision;
  }

  /**
   * A tensor whose values stay encoded: matmul and gathers read them in place, other kernels get a temporary float32 copy.
   * Undefined for a small weight. If matmul is in bfloat16, float32 and float16 weights are rounded here, once.
   */
  store(weight: StoredWeight, atLeast = smallestStored): TensorInfo | undefined {
    const { storedWeights } = this;
    const entry = storedWeights.open(weight, this.rounds && this.precision !== 'float32', atLeast);
    if (!entry) return undefined;
    const dataId = {};
    storedWeights.add(dataId, entry);
    // A getter, for tfjs's own kernels: each of them reads `values` once.
    const data = {
      get values() {
        return storedWeights.floats(entry);
      },
      dtype: 'float32' as const,
      refCount: 1,
    };
    this.data.set(dataId, data);
    return { dataId, shape: [...weight.shape], dtype: 'float32' };
  }

  quantised(weight: StoredWeight, factors?: Float32Array, bits: 8 | 4 = 8, root?: TensorInfo): StoredWeight {
    const of = factors ?? new Float32Array(weight.shape[1]).fill(1);
    return this.storedWeights.quantised(weight, of, bits, root && this.floats(root));
  }

  inputRoot(x: TensorInfo, leftOut: TensorInfo, damping: number): TensorInfo | undefined {
    const K = x.shape[x.shape.length - 1]!;
    const room = new Float32Array(K * Math.max(ROOT_BLOCK, leftOut.shape[0]!));
    const { info, values } = this.allocate([K, K]);
    if (this.addon.inputRoot(this.floats(x), this.floats(leftOut), damping, room, values)) return info;
    this.disposeData(info.dataId, true);
    return undefined;
  }

  isRounded({ dataId }: TensorInfo): boolean {
    return this.storedWeights.find(dataId)?.rounded ?? false;
  }

  /** The factors of a weight's columns if matmul rounds what it is multiplied with to 8 bits. */
  roundingFactors(weight: TensorInfo): Float32Array | undefined {
    return weightBits(this.precision) && this.stored(weight)?.factors;
  }

  columnMaxima(x: TensorInfo): TensorInfo {
    const columns = x.shape[x.shape.length - 1]!;
    return this.made([columns], (y) => this.addon.columnMaxima(this.storedOrFloats(x), y));
  }

  dropPages({ dataId }: TensorInfo): void {
    const entry = this.storedWeights.find(dataId);
    if (entry) this.addon.dropPages(entry.handle);
  }

  /** The stored weight of a tensor; undefined for ordinary and for reshaped tensors. */
  stored({ dataId, shape }: TensorInfo): StoredEntry | undefined {
    const entry = this.storedWeights.find(dataId);
    return entry && shape[0] === entry.rows && shape[1] === entry.columns ? entry : undefined;
  }

  /** The weight argument for kernels that can read stored weights. */
  storedOrFloats(weight: TensorInfo): StoredHandle | Float32Array {
    return this.stored(weight)?.handle ?? this.floats(weight);
  }

  /** @throws naming the first memory-mapped file that was rewritten since it was opened */
  checkFiles(): void {
    this.addon.checkFiles();
  }

  /** The values of a stored weight as an ordinary tensor; undefined for an ordinary tensor. */
  dequantised(tensor: TensorInfo): TensorInfo | undefined {
    const entry = this.storedWeights.find(tensor.dataId);
    if (!entry) return undefined;
    return this.made(tensor.shape, (y) => this.addon.storedFloats(entry.handle, y));
  }

  /**
   * x [..., K] · weight [K, N] or, transposed, [N, K] → [..., N], with the epilogue. Keeps the packed form of frozen weights, except
   * of stored ones: packed copies of these would need the memory that storing saves.
   */
  timesWeight(x: TensorInfo, weight: TensorInfo, transposed: boolean, epilogue: Epilogue = {}): TensorInfo {
    const leading = x.shape.slice(0, -1);
    const { precision } = this;
    const [M, K, N] = [sizeOf(leading), x.shape[leading.length]!, weight.shape[transposed ? 0 : 1]!];
    const y = this.allocate([...leading, N]);
    const a = this.floats(x);
    const { bias, activation, residual } = epilogue;
    const last = [this.floatsOrNull(bias), activation ?? 'none', this.floatsOrNull(residual)] as const;
    const { packed, values: w } = this.operand(weight, transposed, { M, N, K });
    if (packed) this.addon.timesPacked(a, packed, ...last, y.values, M, N, K, precision);
    else this.addon.timesWeight(a, w, transposed, ...last, y.values, M, N, K, precision);
    return y.info;
  }

  /** A weight [K, N] or, transposed, [N, K] for a matmul of M rows: packed if such a copy is kept, else its array or handle. */
  operand(
    weight: TensorInfo,
    transposed: boolean,
    sizes: { M: number; N: number; K: number },
  ): { values: StoredHandle | Float32Array; packed?: Float32Array } {
    const values = this.storedOrFloats(weight);
    if (!(values instanceof Float32Array)) return { values };
    return { values, packed: this.weights.find(weight.dataId, values, transposed, sizes, this.precision) };
  }

  /** An uninitialised float32 tensor. */
  allocate(shape: number[]): { info: TensorInfo; values: Float32Array } {
    const values = this.pool.floats(sizeOf(shape));
    return { info: this.makeTensorInfo(shape, 'float32', values), values };
  }

  /** A float32 tensor whose values are written by `write`. */
  made(shape: number[], write: (values: Float32Array) => void): TensorInfo {
    return this.madeAll([shape], ([values]) => write(values!))[0]!;
  }

  /** Float32 tensors whose values are written by `write`; they are freed if it throws. */
  madeAll(shapes: readonly number[][], write: (values: Float32Array[]) => void): TensorInfo[] {
    const made = shapes.map((shape) => this.allocate(shape));
    try {
      write(made.map(({ values }) => values));
    } catch (error) {
      for (const { info } of made) this.disposeData(info.dataId, true);
      throw error;
    }
    return made.map(({ info }) => info);
  }

  /** An uninitialised bool tensor. */
  allocateFlags(shape: number[]): { info: TensorInfo; values: Uint8Array } {
    const values = this.pool.bytes(sizeOf(shape));
    return { info: this.makeTensorInfo(shape, 'bool', values), values };
  }

  /** The array of a bool tensor itself: do not write to it. */
  flags(tensor: TensorInfo): Uint8Array {
    return this.values(tensor, Uint8Array, 'bool');
  }

  /** The array of a float32 tensor itself: do not write to it. */
  floats(tensor: TensorInfo): Float32Array {
    return this.values(tensor, Float32Array, 'float32');
  }

  floatsOrNull(tensor: TensorInfo | undefined): Float32Array | null {
    return tensor ? this.floats(tensor) : null;
  }

  ints(tensor: TensorInfo): Int32Array {
    return this.values(tensor, Int32Array, 'int32');
  }

  private values<T>(
    { dataId, dtype }: TensorInfo,
    TypedArray: new (values: ArrayLike<number>) => T,
    expected: DataType,
  ): T {
    const { values } = this.data.get(dataId);
    if (values instanceof TypedArray) return values;
    if (dtype !== expected) throw new Error(`native: expected a tensor of type ${expected}, found ${dtype}`);
    return new TypedArray(values as unknown as ArrayLike<number>); // tfjs may keep plain numbers
  }

  override write(values: Values, _shape: number[], dtype: DataType): object {
    const data = this.hold(values, dtype, 1);
    this.data.set(data, data);
    return data;
  }

  override move(dataId: object, values: Values, _shape: number[], dtype: DataType, refCount: number): void {
    this.data.set(dataId, this.hold(values, dtype, refCount));
  }

  private hold(values: Values | undefined, dtype: DataType, refCount: number): TensorData {
    if (ArrayBuffer.isView(values)) this.pool.retain(values.buffer);
    return new TensorData(values, dtype, refCount);
  }

  override disposeData(dataId: object, force = false): boolean {
    const ordinary = this.data.has(dataId) && !this.storedWeights.find(dataId);
    const values = ordinary ? this.data.get(dataId).values : undefined;
    const gone = super.disposeData(dataId, force);
    if (!gone) return false;
    this.weights.drop(dataId);
    this.storedWeights.drop(dataId);
    if (ArrayBuffer.isView(values)) this.pool.release(values.buffer);
    return true;
  }

  /** Pooled memory is copied, since it will be reused. */
  override readSync(dataId: object): Values {
    const values = super.readSync(dataId);
    return ArrayBuffer.isView(values) && this.pool.owns(values.buffer)
      ? (values as Float32Array).slice()
      : values;
  }

  /** Counts `memory().numBytesPeak` from now on. */
  restartPeak(): void {
    this.pool.restartPeak();
  }

  override memory() {
    const { liveBytes, freeBytes, peakBytes } = this.pool.memory();
    return {
      unreliable: false,
      reasons: [],
      numBytesPooled: liveBytes,
      numBytesFree: freeBytes,
      numBytesPeak: peakBytes,
      numBytesPacked: this.weights.bytes,
      numBytesStored: this.storedWeights.bytes,
      // The part of tfjs's own numBytes that is for stored weights (four bytes a number).
      numBytesNotHeld: this.storedWeights.countedBytes,
    };
  }
}

export function sizeOf(shape: number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}
