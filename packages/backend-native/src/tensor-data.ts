// The data of the tensors of this backend.
import { DataStorage } from '@tensorflow/tfjs-core';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';

/** The data of a tensor. It serves as its own dataId, so that no lookup is needed. */
export class TensorData {
  complexTensorInfos?: { real: TensorInfo; imag: TensorInfo };
  /** The storage that contains it, if any. */
  home?: TensorStorage;

  constructor(
    public values: backend_util.BackendValues | undefined,
    public dtype: DataType,
    public refCount: number,
  ) {}
}

/**
 * tfjs's DataStorage, but without a WeakMap for tensors of this backend. Each generated token makes and frees hundreds of small
 * tensors, for which a WeakMap, with garbage collection, takes several times as long as the arithmetic.
 */
export class TensorStorage extends DataStorage<TensorData> {
  private count = 0;

  override get(dataId: object): TensorData {
    return this.holds(dataId) ? dataId : super.get(dataId);
  }

  override has(dataId: object): boolean {
    return this.holds(dataId) || super.has(dataId);
  }

  override set(dataId: object, data: TensorData): void {
    if (dataId !== data) return super.set(dataId, data);
    data.home = this;
    this.count++;
  }

  override delete(dataId: object): boolean {
    if (!this.holds(dataId)) return super.delete(dataId);
    dataId.home = undefined;
    dataId.values = undefined; // a tensor that moved to another backend keeps its dataId
    this.count--;
    return true;
  }

  override numDataIds(): number {
    return this.count + super.numDataIds();
  }

  private holds(dataId: object): dataId is TensorData {
    return dataId instanceof TensorData && dataId.home === this;
  }
}
