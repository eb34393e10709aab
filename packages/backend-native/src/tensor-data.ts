// Where the backend keeps what tensors hold.
import { DataStorage } from '@tensorflow/tfjs-core';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';

/** What a tensor holds. It is its own dataId, so that finding it takes no table. */
export class TensorData {
  complexTensorInfos?: { real: TensorInfo; imag: TensorInfo };
  /** The storage it lies in; none before and after. */
  home?: TensorStorage;

  constructor(
    public values: backend_util.BackendValues | undefined,
    public dtype: DataType,
    public refCount: number,
  ) {}
}

/**
 * tfjs's DataStorage without its WeakMap for tensors that were made here: generating a token makes and frees hundreds of
 * small tensors, and what a WeakMap costs them, with the garbage collector's share, is several times the arithmetic.
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
