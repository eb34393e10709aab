import { roundWeight } from '@blip2/nn';
import type { Encoding, Precision, Rounding, StoredWeight, StoringBackend } from '@blip2/nn';
import { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';
import { countBuffers } from './buffer-bytes';
import type { BufferBytes } from './buffer-bytes';
import { BufferPool } from './buffer-pool';
import { Constants } from './constants';
import type { Adapter, OpenDevice } from './device';
import { failureOf } from './failure';
import { sizeOf } from './kernel';
import { columnMaxima, copyRows } from './kernels/rows';
import { bytesOf, keyOf, sourceOf } from './program';
import type { Grid, Program, Uniform } from './program';
import { bufferOfWeight, openWeight, smallestStored } from './stored-weights';
import type { StoredEntry, WeightFiles } from './stored-weights';
import { usualTiles } from './tiles';
import type { Tiles } from './tiles';
import { Uniforms } from './uniforms';
import { codecs } from './wgsl/codecs';

/** Dispatches that are recorded before they are submitted, and the bytes that wait to be destroyed meanwhile. */
const BATCH = 64;
const BATCH_BYTES = 64 << 20;

/** Bytes of values that are kept on the GPU by their contents when they are uploaded. */
const SMALL = 8 << 10;

/** Most storage buffers of a shader. */
const BINDINGS = 9;

/** Of tensors: shaders read and write them, and they are copied. */
const TENSOR = () => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** A weight for a shader: its encoding, and the uniforms with which the codec of the encoding finds its numbers. */
export interface Weight {
  kind: Encoding['kind'];
  buffer: TensorInfo | GPUBuffer;
  view: StoredEntry['view'];
  /** Not an ordinary tensor. */
  stored: boolean;
}

/** tfjs's backend with the buffers, the errors and the kernels of this package. Reads are asynchronous only. */
export class GpuBackend extends WebGPUBackend implements StoringBackend {
  readonly encodings: ReadonlySet<Encoding['kind']> = new Set(Object.keys(codecs) as Encoding['kind'][]);
  /** Of products with weights; the fastest that was measured comes first. int8 and int4 are those of weights, multiplied in float32. */
  precisions: readonly Precision[] = ['float32', 'bfloat16', 'int8', 'int4'];
  precision: Precision = 'float32';
  rounding: Rounding = (weight, factors, bits) => roundWeight(weight, factors, bits, this.files?.read);
  /** Of products in each precision. */
  tiles: Record<'float32' | 'bfloat16', Tiles>;
  readonly adapter: Adapter;
  readonly gpu: GPU;
  readonly bufferBytes: BufferBytes;
  private readonly pool: BufferPool;
  private readonly constants: Constants;
  private readonly uniforms: Uniforms;
  private readonly pipelines = new Map<string, GPUComputePipeline>();
  /** Bound in place of an optional tensor that is absent, one for each binding: two of them may be written to. */
  private readonly absent: readonly GPUBuffer[];
  private readonly stored = new Map<object, StoredEntry>();
  private readonly derived = new Map<object, TensorInfo>();
  /** float32 copies of stored weights for kernels of tfjs, until the commands that read them are submitted. */
  private readonly copies = new Map<object, GPUBuffer>();
  /** Whether the buffers of a command are being found. */
  private gathering = false;
  private countedBytes = 0;
  private readonly failure: ReturnType<typeof failureOf>;

  /** @param files for weights that are in files */
  constructor(
    { gpu, device, adapter, info }: OpenDevice,
    private readonly files?: WeightFiles,
  ) {
    super(device, info);
    this.gpu = gpu;
    this.adapter = adapter;
    const tiles = usualTiles(adapter, 'float32');
    this.tiles = { float32: tiles, bfloat16: tiles };
    this.failure = failureOf(device, adapter);
    this.bufferBytes = countBuffers(device);
    this.pool = new BufferPool(device);
    // tfjs uses these members only
    this.bufferManager = this.pool as Pick<BufferPool, keyof BufferPool> as never;
    this.constants = new Constants(device);
    this.uniforms = new Uniforms(device);
    const [size, usage] = [256, GPUBufferUsage.STORAGE];
    this.absent = Array.from({ length: BINDINGS }, () => device.createBuffer({ size, usage }));
  }

  /** @throws Error for one that this backend does not have */
  setPrecision(chosen: Precision): void {
    if (!this.precisions.includes(chosen))
      throw new Error(
        `precision ${chosen} needs the backend native; webgpu has ${this.precisions.join(', ')}`,
      );
    this.precision = chosen;
  }

  /** An uninitialised tensor on the GPU. */
  allocate(shape: readonly number[], dtype: DataType = 'float32'): TensorInfo {
    const info = this.makeTensorInfo([...shape], dtype);
    this.uploadToGPU(info.dataId);
    return info;
  }

  /** Frees a tensor that a kernel made for itself. */
  release(...tensors: TensorInfo[]): void {
    for (const { dataId } of tensors) this.disposeData(dataId);
  }

  /** Small constant numbers on the GPU, such as indices; the same numbers share a buffer. */
  constant(values: Int32Array | Uint32Array): GPUBuffer {
    return this.constants.find(values.buffer as ArrayBuffer, GPUBufferUsage.STORAGE);
  }

  /** Small values, such as the same indices in each layer, are copied from buffers that are kept; tfjs makes one for each upload. */
  override uploadToGPU(dataId: object): void {
    const data: { resource?: unknown; values?: unknown; dtype: string; shape: number[] } =
      this.tensorMap.get(dataId);
    const bytes = 4 * sizeOf(data.shape);
    if (data.resource || !data.values || bytes > SMALL || bytes === 0) return super.uploadToGPU(dataId);
    const numbers = data.values as Float32Array | Int32Array | Uint8Array;
    const array = data.dtype === 'float32' ? Float32Array.from(numbers) : Int32Array.from(numbers);
    const buffer = this.pool.acquireBuffer(bytes, TENSOR());
    const source = this.constants.find(array.buffer, GPUBufferUsage.COPY_SRC);
    this.ensureCommandEncoderReady();
    this.endComputePassEncoder();
    this['commandEncoder'].copyBufferToBuffer(source, 0, buffer, 0, bytes);
    data.resource = buffer;
    data.values = undefined;
  }

  /** Records one run of a shader. Tensors and buffers are bound in order, an absent one as a buffer without meaning. */
  run(
    program: Program,
    grid: Grid,
    bound: readonly (TensorInfo | GPUBuffer | undefined)[],
    uniforms: readonly Uniform[] = [],
  ): void {
    const [x, y = 1, z = 1] = grid;
    if (x * y * z === 0) return;
    const pipeline = this.pipeline(program);
    const resources: GPUBufferBinding[] = this.buffersOf(bound).map((buffer) => ({ buffer }));
    if (uniforms.length > 0) resources.push(this.uniforms.add(bytesOf(uniforms)));
    const entries = resources.map((resource, binding) => ({ binding, resource }));
    const group = this.device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
    this.ensureCommandEncoderReady();
    const pass = (this['computePassEncoder'] ??= this['commandEncoder'].beginComputePass());
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(x, y, z);
    this.recorded();
  }

  /** Copies the first `bytes` of a tensor's buffer to a place in another one. */
  copy(from: TensorInfo, to: TensorInfo, at: number, bytes: number): void {
    const [source, target] = this.buffersOf([from, to]) as [GPUBuffer, GPUBuffer];
    this.ensureCommandEncoderReady();
    this.endComputePassEncoder();
    this['commandEncoder'].copyBufferToBuffer(source, 0, target, at, bytes);
    this.recorded();
  }

  private recorded(): void {
    this['dispatchCountInPass']++;
    if (this.gathering) return;
    const waiting = this.constants.droppedBytes + this.pool.droppedBytes;
    if (this['dispatchCountInPass'] >= BATCH || waiting >= BATCH_BYTES) this.flush();
  }

  /** Submits what was recorded. */
  flush(): void {
    this.ensureCommandEncoderReady();
    this.endComputePassEncoder();
    this.submitQueue();
  }

  /**
   * The buffers of one command. Those of stored weights are made by commands of their own, after which nothing is submitted yet: it would
   * release the buffers that were found before.
   */
  private buffersOf(bound: readonly (TensorInfo | GPUBuffer | undefined)[]): GPUBuffer[] {
    const outer = this.gathering;
    this.gathering = true;
    try {
      return bound.map((one, i) => (one ? this.bufferOf(one) : this.absent[i]!));
    } finally {
      this.gathering = outer;
    }
  }

  /** The buffer of a tensor, which is uploaded if it is not on the GPU. */
  private bufferOf(one: TensorInfo | GPUBuffer): GPUBuffer {
    if (!('dataId' in one)) return one;
    this.uploadToGPU(one.dataId);
    return this.tensorMap.get(one.dataId).resource as GPUBuffer;
  }

  private pipeline(program: Program): GPUComputePipeline {
    const key = keyOf(program);
    const known = this.pipelines.get(key);
    if (known) return known;
    const module = this.device.createShaderModule({ code: sourceOf(program), label: program.name });
    const made = this.device.createComputePipeline({
      compute: { module, entryPoint: 'main' },
      layout: 'auto',
      label: key,
    });
    this.pipelines.set(key, made);
    return made;
  }

  override submitQueue(): void {
    this.uniforms.write();
    super.submitQueue();
    this.constants.submitted();
    this.pool.submitted();
    for (const buffer of this.copies.values()) this.pool.releaseBuffer(buffer);
    this.copies.clear();
  }

  /**
   * Keeps a weight as it is: products and gathers read it so, kernels of tfjs get a temporary float32 copy. One in a file is uploaded when
   * it is first used. Undefined for a small one.
   * @throws Error if the spans do not fit the weight, or it is larger than the GPU's largest buffer
   */
  store(weight: StoredWeight, atLeast = smallestStored): TensorInfo | undefined {
    const [rows, columns] = weight.shape;
    if (rows * columns < (weight.encoding.kind.startsWith('INT') ? 1 : Math.max(1, atLeast)))
      return undefined;
    const entry = openWeight(this.device, weight, this.files);
    const info = this.makeTensorInfo([rows, columns], 'float32');
    this.stored.set(info.dataId, entry);
    this.countedBytes += 4 * rows * columns;
    const copied = () => this.copyOf(info);
    // A getter, for tfjs's own kernels.
    Object.defineProperty(this.tensorMap.get(info.dataId), 'resource', { get: copied, set() {} });
    return info;
  }

  private copyOf(info: TensorInfo): GPUBuffer {
    const known = this.copies.get(info.dataId);
    if (known) return known;
    const copy = this.pool.acquireBuffer(4 * sizeOf(info.shape), TENSOR());
    copyRows(this, info, copy, info.shape[0]!);
    this.copies.set(info.dataId, copy);
    return copy;
  }

  /** A weight [rows, columns] for a shader, stored or ordinary. */
  weight(tensor: TensorInfo): Weight {
    const entry = this.stored.get(tensor.dataId);
    const whole = entry && tensor.shape[0] === entry.rows && tensor.shape[1] === entry.columns;
    if (whole) return { ...entry, buffer: bufferOfWeight(this.device, entry, this.files), stored: true };
    const columns = tensor.shape[tensor.shape.length - 1]!;
    return { kind: 'F32', buffer: tensor, view: [columns, 0, 0, 0], stored: false };
  }

  /** What `make` gives for a stored weight, made once and freed with it. */
  ofStored({ dataId }: TensorInfo, make: () => TensorInfo): TensorInfo {
    const known = this.derived.get(dataId);
    if (known) return known;
    const made = make();
    this.derived.set(dataId, made);
    return made;
  }

  quantised(weight: StoredWeight, factors?: Float32Array, bits: 8 | 4 = 8): StoredWeight {
    return this.rounding(weight, factors ?? new Float32Array(weight.shape[1]).fill(1), bits);
  }

  columnMaxima(x: TensorInfo): TensorInfo {
    return columnMaxima(this, x);
  }

  /** Takes a weight that lies in a file out of the GPU's memory until it is used again. */
  dropPages({ dataId }: TensorInfo): void {
    const entry = this.stored.get(dataId);
    if (!entry?.source || !entry.buffer) return;
    if (this['dispatchCountInPass'] === 0) entry.buffer.destroy();
    else this.constants.drop(entry.buffer);
    entry.buffer = undefined;
  }

  isRounded({ dataId }: TensorInfo): boolean {
    return this.stored.get(dataId)?.rounded ?? false;
  }

  /** The values of a stored weight as an ordinary tensor; undefined for an ordinary tensor. */
  dequantised(tensor: TensorInfo): TensorInfo | undefined {
    const entry = this.stored.get(tensor.dataId);
    if (!entry) return undefined;
    const made = this.allocate(tensor.shape);
    copyRows(this, { ...tensor, shape: [entry.rows, entry.columns] }, made, entry.rows);
    return made;
  }

  /** A weight's file is compared when it is read, and may change afterwards. */
  checkFiles(): void {}

  override disposeData(dataId: object, force = false): boolean {
    const entry = this.stored.get(dataId);
    if (!entry) {
      // Commands run in their order, so the next one may write to what is freed now; tfjs would keep it until all are submitted.
      this['commandQueueOwnedIds'].delete(dataId);
      return super.disposeData(dataId, force);
    }
    const data = this.tensorMap.get(dataId);
    data.refCount = force ? 0 : data.refCount - 1;
    if (data.refCount > 0) return false;
    this.stored.delete(dataId);
    this.tensorMap.delete(dataId);
    this.countedBytes -= 4 * entry.rows * entry.columns;
    if (entry.buffer) this.constants.drop(entry.buffer);
    const derived = this.derived.get(dataId);
    if (derived && this.derived.delete(dataId)) this.release(derived);
    return true;
  }

  /** @throws Error if the values are on the GPU only: another process would have to wait for it */
  override readSync(dataId: object): backend_util.BackendValues {
    const { values } = this.tensorMap.get(dataId);
    if (values) return values;
    throw new Error('webgpu: expected an asynchronous read (await x.data()), found a synchronous one');
  }

  /** @throws Error if the GPU is out of memory, or was lost, since the last read */
  override async read(dataId: object): Promise<backend_util.BackendValues> {
    const { values, dtype, shape, resource } = this.tensorMap.get(dataId);
    if (values) return values;
    const bytes = 4 * sizeOf(shape);
    if (bytes === 0) return typed(new ArrayBuffer(0), dtype);
    const staging = this.pool.acquireBuffer(bytes, GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ);
    this.ensureCommandEncoderReady();
    this.endComputePassEncoder();
    this['commandEncoder'].copyBufferToBuffer(resource as GPUBuffer, 0, staging, 0, bytes);
    this.submitQueue();
    try {
      await staging.mapAsync(GPUMapMode.READ, 0, bytes);
      const copied = staging.getMappedRange(0, bytes).slice(0);
      staging.unmap();
      this.failure.check();
      return typed(copied, dtype);
    } catch (error) {
      this.failure.check();
      throw error;
    } finally {
      this.pool.releaseBuffer(staging);
    }
  }

  /** Counts `memory().numBytesPeak` and the peak of `bufferBytes` from now on. */
  restartPeak(): void {
    this.pool.restartPeak();
    this.bufferBytes.peak = this.bufferBytes.now;
  }

  override memory() {
    const { numBytesUsed, numBytesAllocated, numBytesPeak, counts } = this.pool;
    return {
      ...super.memory(),
      numBytesInGPU: numBytesUsed,
      numBytesAllocatedInGPU: numBytesAllocated,
      numBytesPeak,
      numBuffers: counts.used + counts.free,
      numBytesStored: [...this.stored.values()].reduce((sum, { buffer }) => sum + (buffer?.size ?? 0), 0),
      // The part of tfjs's own numBytes that is for stored weights (four bytes a number).
      numBytesNotHeld: this.countedBytes,
    };
  }

  override dispose(): void {
    super.dispose();
    this.failure.end();
    this.device.destroy();
  }
}

function typed(bytes: ArrayBuffer, dtype: DataType): backend_util.BackendValues {
  if (dtype === 'float32') return new Float32Array(bytes);
  const whole = new Int32Array(bytes);
  return dtype === 'bool' ? Uint8Array.from(whole) : whole;
}
