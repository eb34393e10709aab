import { totalmem } from 'node:os';
import { MathBackendCPU } from '@tensorflow/tfjs-backend-cpu';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';
import type { NativeAddon, Precision } from './addon';
import { BufferPool } from './buffer-pool';
import { PackedWeights } from './packed-weights';

type Values = backend_util.BackendValues;

/** tfjs's CPU backend with pooled memory and the C++ addon at hand. Kernels that are not overridden run as on `cpu`. */
export class NativeBackend extends MathBackendCPU {
  private readonly pool = new BufferPool();
  private readonly weights: PackedWeights;

  /** @param packedLimit bytes that packed weights may take; by default a quarter of the machine's memory */
  constructor(
    readonly addon: NativeAddon,
    packedLimit = totalmem() / 4,
  ) {
    super();
    this.weights = new PackedWeights(addon, this.pool, packedLimit);
  }

  /** Of matrix products from now on. Throws where the machine lacks the instructions. */
  setPrecision(precision: Precision): void {
    this.weights.setPrecision(precision);
  }

  /** x [..., K] · weight [K, N] or, turned, [N, K] → [..., N]; the packed form of a weight that stays is kept. */
  timesWeight(x: TensorInfo, weight: TensorInfo, turned: boolean, bias: TensorInfo | undefined): TensorInfo {
    const leading = x.shape.slice(0, -1);
    const [M, K, N] = [sizeOf(leading), x.shape[leading.length]!, weight.shape[turned ? 0 : 1]!];
    const y = this.allocate([...leading, N]);
    const [a, w, b] = [this.floats(x), this.floats(weight), bias ? this.floats(bias) : null];
    const packed = this.weights.find(weight.dataId, w, turned, { M, N, K });
    if (packed) this.addon.gemmPacked(a, false, packed, b, y.values, M, N, K);
    else this.addon.gemm(a, false, w, turned, b, y.values, 1, M, N, K, false, false);
    return y.info;
  }

  /** An uninitialised float32 tensor. */
  allocate(shape: number[]): { info: TensorInfo; values: Float32Array } {
    const values = this.pool.floats(sizeOf(shape));
    return { info: this.makeTensorInfo(shape, 'float32', values), values };
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
    const dataId = {};
    this.set(dataId, values, dtype, 1);
    return dataId;
  }

  override move(dataId: object, values: Values, _shape: number[], dtype: DataType, refCount: number): void {
    this.set(dataId, values, dtype, refCount);
  }

  private set(dataId: object, values: Values | undefined, dtype: DataType, refCount: number): void {
    if (ArrayBuffer.isView(values)) this.pool.retain(values.buffer);
    this.data.set(dataId, { values, dtype, refCount });
  }

  override disposeData(dataId: object, force = false): boolean {
    const values = this.data.has(dataId) ? this.data.get(dataId).values : undefined;
    const gone = super.disposeData(dataId, force);
    if (gone) this.weights.drop(dataId);
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
  } {
    const { liveBytes, freeBytes } = this.pool.memory();
    return {
      ...{ unreliable: false, reasons: [], numBytesPooled: liveBytes, numBytesFree: freeBytes },
      numBytesPacked: this.weights.bytes,
    };
  }
}

export function sizeOf(shape: number[]): number {
  return shape.reduce((size, n) => size * n, 1);
}
