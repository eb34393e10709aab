import { totalmem } from 'node:os';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import { engine } from '@tensorflow/tfjs-core';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';
import type { Activation, Precision, StoredWeight, StoringBackend } from '@blip2/nn';
import type { NativeAddon, StoredHandle } from './addon';
import { BufferPool } from './buffer-pool';
import { PackedWeights } from './packed-weights';
import type { StoredEntry } from './stored-weights';
import { encodings, smallestStored, StoredWeights } from './stored-weights';
import { TensorData, TensorStorage } from './tensor-data';

type Values = backend_util.BackendValues;

/** What is applied to the result of a matmul: activation(result + bias) + residual. */
export interface Epilogue {
  bias?: TensorInfo;
  activation?: Activation;
  residual?: TensorInfo;
}

/** tfjs's CPU backend with pooled memory and the C++ addon at hand. Kernels that are not overridden run as on `cpu`. */
export class NativeBackend extends MathBackendCPU implements StoringBackend {
  readonly encodings = encodings;
  private readonly pool = new BufferPool();
  private readonly weights: PackedWeights;
  private readonly storedWeights: StoredWeights;
  /** Of the matmuls that are called next: read at each call, so a computation without an await has one precision. */
  precision: Precision = 'float32';

  /** @param packedLimit bytes that packed weights may take; by default a quarter of the machine's memory */
  constructor(
    readonly addon: NativeAddon,
    packedLimit = totalmem() / 4,
  ) {
    super();
    this.data = new TensorStorage(this, engine());
    this.weights = new PackedWeights(addon, this.pool, packedLimit);
    this.storedWeights = new StoredWeights(addon);
  }

  /** The precisions of matmul that this processor supports, the fastest first. */
  get precisions(): readonly Precision[] {
    const rounds = ['avx512bf16', 'amx'].includes(this.addon.instructionSet());
    return rounds ? ['bfloat16', 'float32'] : ['float32'];
  }

  /** Of matmuls from now on; frees what was packed in the other precision. @throws if this processor does not support it */
  setPrecision(precision: Precision): void {
    this.addon.packedLength(1, 1, precision); // refuses an unsupported one
    if (precision !== this.precision) this.weights.clear();
    this.precision = precision;
  }

  /**
   * A tensor whose values keep their encoding: matmul and gathers read them in place, any other kernel gets a temporary float32
   * copy. Undefined for a small weight. If matmul is in bfloat16 now, float32 and float16 are rounded once, here.
   */
  store(weight: StoredWeight, atLeast = smallestStored): TensorInfo | undefined {
    const { storedWeights } = this;
    const entry = storedWeights.open(weight, this.precision === 'bfloat16', atLeast);
    if (!entry) return undefined;
    const dataId = {};
    storedWeights.add(dataId, entry);
    // tfjs's own kernels read `values`, once.
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

  /** The stored weight of a tensor, if it has one and is not reshaped. */
  stored({ dataId, shape }: TensorInfo): StoredEntry | undefined {
    const entry = this.storedWeights.find(dataId);
    return entry && shape[0] === entry.rows && shape[1] === entry.columns ? entry : undefined;
  }

  /** The weight argument of kernels that can read stored weights. */
  storedOrFloats(weight: TensorInfo): StoredHandle | Float32Array {
    return this.stored(weight)?.handle ?? this.floats(weight);
  }

  /** The values of a stored tensor as an ordinary one; undefined for an ordinary one. */
  dequantised(tensor: TensorInfo): TensorInfo | undefined {
    const entry = this.storedWeights.find(tensor.dataId);
    if (!entry) return undefined;
    const y = this.allocate(tensor.shape);
    this.addon.storedFloats(entry.handle, y.values);
    return y.info;
  }

  /**
   * x [..., K] · weight [K, N] or, transposed, [N, K] → [..., N], with the epilogue. The packed form of a frozen weight is kept,
   * except of a stored one: packed copies of everything would take the memory that storing saves.
   */
  timesWeight(x: TensorInfo, weight: TensorInfo, transposed: boolean, epilogue: Epilogue = {}): TensorInfo {
    const leading = x.shape.slice(0, -1);
    const { precision } = this;
    const [M, K, N] = [sizeOf(leading), x.shape[leading.length]!, weight.shape[transposed ? 0 : 1]!];
    const y = this.allocate([...leading, N]);
    const a = this.floats(x);
    const { bias, activation, residual } = epilogue;
    const last = [
      bias ? this.floats(bias) : null,
      activation ?? 'none',
      residual ? this.floats(residual) : null,
    ] as const;
    const w = this.storedOrFloats(weight);
    const packed =
      w instanceof Float32Array && this.weights.find(weight.dataId, w, transposed, { M, N, K }, precision);
    if (packed) this.addon.timesPacked(a, packed, ...last, y.values, M, N, K, precision);
    else this.addon.timesWeight(a, w, transposed, ...last, y.values, M, N, K, precision);
    return y.info;
  }

  /** An uninitialised float32 tensor. */
  allocate(shape: number[]): { info: TensorInfo; values: Float32Array } {
    const values = this.pool.floats(sizeOf(shape));
    return { info: this.makeTensorInfo(shape, 'float32', values), values };
  }

  /** An uninitialised bool tensor. */
  allocateFlags(shape: number[]): { info: TensorInfo; values: Uint8Array } {
    const values = this.pool.bytes(sizeOf(shape));
    return { info: this.makeTensorInfo(shape, 'bool', values), values };
  }

  /** The live array of a bool tensor; never to be written to. */
  flags(tensor: TensorInfo): Uint8Array {
    const { values } = this.data.get(tensor.dataId);
    if (values instanceof Uint8Array && tensor.dtype === 'bool') return values;
    throw new Error(`native: expected a bool tensor, got ${tensor.dtype}`);
  }

  /** The live array of a float32 tensor; never to be written to. */
  floats(tensor: TensorInfo): Float32Array {
    const { values } = this.data.get(tensor.dataId);
    if (values instanceof Float32Array) return values;
    if (tensor.dtype !== 'float32') throw new Error(`native: expected a float32 tensor, got ${tensor.dtype}`);
    return new Float32Array(values as unknown as ArrayLike<number>);
  }

  ints(tensor: TensorInfo): Int32Array {
    const { values } = this.data.get(tensor.dataId);
    if (values instanceof Int32Array) return values;
    if (tensor.dtype !== 'int32') throw new Error(`native: expected an int32 tensor, got ${tensor.dtype}`);
    return new Int32Array(values as unknown as ArrayLike<number>);
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
    const here = this.data.has(dataId) && !this.storedWeights.find(dataId);
    const values = here ? this.data.get(dataId).values : undefined;
    const gone = super.disposeData(dataId, force);
    if (gone) this.weights.drop(dataId);
    if (gone) this.storedWeights.drop(dataId);
    if (gone && ArrayBuffer.isView(values)) this.pool.release(values.buffer);
    return gone;
  }

  /** Readers get a copy where the memory will be reused. */
  override readSync(dataId: object): Values {
    const values = super.readSync(dataId);
    return ArrayBuffer.isView(values) && this.pool.owns(values.buffer)
      ? (values as Float32Array).slice()
      : values;
  }

  override memory(): {
    unreliable: boolean;
    reasons: string[];
    numBytesPooled: number;
    numBytesFree: number;
    numBytesPacked: number;
    numBytesStored: number;
    numBytesNotHeld: number;
  } {
    const { liveBytes, freeBytes } = this.pool.memory();
    return {
      ...{ unreliable: false, reasons: [], numBytesPooled: liveBytes, numBytesFree: freeBytes },
      numBytesPacked: this.weights.bytes,
      numBytesStored: this.storedWeights.bytes,
      // What tfjs counts for stored weights in its own numBytes, at four bytes a number.
      numBytesNotHeld: this.storedWeights.countedBytes,
    };
  }
}

export function sizeOf(shape: number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}
