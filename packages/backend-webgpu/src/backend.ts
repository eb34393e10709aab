import type { Encoding, StoredWeight, StoringBackend } from '@blip2/nn';
import { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';
import { BufferPool } from './buffer-pool';
import { Constants } from './constants';
import type { Adapter, OpenDevice } from './device';
import { failureOf } from './failure';
import { sizeOf } from './kernel';
import { copyRows } from './kernels/rows';
import { bytesOf, keyOf, sourceOf } from './program';
import type { Grid, Program, Uniform } from './program';
import { smallestStored, upload } from './stored-weights';
import type { ReadFile, StoredEntry } from './stored-weights';
import { codecs } from './wgsl/codecs';

/** Dispatches that are recorded before they are submitted, and the bytes that freed tensors among them may hold. */
const BATCH = 64;
const BATCH_BYTES = 256 << 20;

/** Most storage buffers of a shader. */
const BINDINGS = 9;

/** Of tensors: shaders read and write them, and they are copied. */
const TENSOR = () => GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;

/** A weight for a shader: its encoding, and the uniforms with which the codec of the encoding finds its numbers. */
export interface Weight {
  kind: Encoding['kind'];
  buffer: TensorInfo | GPUBuffer;
  view: StoredEntry['view'];
}

/** tfjs's backend with the buffers, the errors and the kernels of this package. Reads are asynchronous only. */
export class GpuBackend extends WebGPUBackend implements StoringBackend {
  readonly encodings: ReadonlySet<Encoding['kind']> = new Set(Object.keys(codecs) as Encoding['kind'][]);
  readonly adapter: Adapter;
  readonly gpu: GPU;
  private readonly pool: BufferPool;
  private readonly constants: Constants;
  private readonly pipelines = new Map<string, GPUComputePipeline>();
  /** Bound in place of an optional tensor that is absent, one for each binding: two of them may be written to. */
  private readonly absent: readonly GPUBuffer[];
  private readonly stored = new Map<object, StoredEntry>();
  /** float32 copies of stored weights for kernels of tfjs, until the commands that read them are submitted. */
  private readonly copies = new Map<object, GPUBuffer>();
  /** Whether the buffers of a command are being found. */
  private gathering = false;
  private storedBytes = 0;
  private countedBytes = 0;
  private readonly failure: ReturnType<typeof failureOf>;

  /** @param readFile for weights that are in files */
  constructor(
    { gpu, device, adapter, info }: OpenDevice,
    private readonly readFile?: ReadFile,
  ) {
    super(device, info);
    this.gpu = gpu;
    this.adapter = adapter;
    this.failure = failureOf(device, adapter);
    this.pool = new BufferPool(device);
    // tfjs uses these members only
    this.bufferManager = this.pool as Pick<BufferPool, keyof BufferPool> as never;
    this.constants = new Constants(device);
    const [size, usage] = [256, GPUBufferUsage.STORAGE];
    this.absent = Array.from({ length: BINDINGS }, () => device.createBuffer({ size, usage }));
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
    const buffers = this.buffersOf(bound);
    if (uniforms.length > 0) buffers.push(this.constants.find(bytesOf(uniforms), GPUBufferUsage.UNIFORM));
    const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
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
    if (this['dispatchCountInPass'] < BATCH && this.pendingBytes() < BATCH_BYTES) return;
    this.endComputePassEncoder();
    this.submitQueue();
  }

  /** Bytes of tensors that were freed while they wait to be submitted. */
  private pendingBytes(): number {
    let bytes = 0;
    for (const id of this['tensorDataPendingDisposal']) {
      const { resource } = this.tensorMap.get(id) ?? {};
      bytes += resource && 'size' in resource ? resource.size : 0;
    }
    return bytes;
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
    this['commandQueueOwnedIds'].add(one.dataId);
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
    super.submitQueue();
    this.constants.submitted();
    for (const buffer of this.copies.values()) this.pool.releaseBuffer(buffer);
    this.copies.clear();
  }

  /**
   * Uploads a weight as it is: products and gathers read it so, kernels of tfjs get a temporary float32 copy. Undefined for a small one.
   * @throws Error if the spans do not fit the weight, or it is larger than the GPU's largest buffer
   */
  store(weight: StoredWeight, atLeast = smallestStored): TensorInfo | undefined {
    const [rows, columns] = weight.shape;
    if (rows * columns < (weight.encoding.kind.startsWith('INT') ? 1 : Math.max(1, atLeast)))
      return undefined;
    const entry = upload(this.device, weight, this.readFile);
    const info = this.makeTensorInfo([rows, columns], 'float32');
    this.stored.set(info.dataId, entry);
    this.storedBytes += entry.buffer.size;
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
    if (whole) return entry;
    return { kind: 'F32', buffer: tensor, view: [tensor.shape[tensor.shape.length - 1]!, 0, 0, 0] };
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

  /** Weights were copied to the GPU, so their files may change. */
  checkFiles(): void {}

  override disposeData(dataId: object, force = false): boolean {
    const entry = this.stored.get(dataId);
    if (!entry) return super.disposeData(dataId, force);
    const data = this.tensorMap.get(dataId);
    data.refCount = force ? 0 : data.refCount - 1;
    if (data.refCount > 0) return false;
    this.stored.delete(dataId);
    this.tensorMap.delete(dataId);
    this.storedBytes -= entry.buffer.size;
    this.countedBytes -= 4 * entry.rows * entry.columns;
    this.constants.drop(entry.buffer);
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

  /** Counts `memory().numBytesPeak` from now on. */
  restartPeak(): void {
    this.pool.restartPeak();
  }

  override memory() {
    const { numBytesUsed, numBytesAllocated, numBytesPeak, counts } = this.pool;
    return {
      ...super.memory(),
      numBytesInGPU: numBytesUsed,
      numBytesAllocatedInGPU: numBytesAllocated,
      numBytesPeak,
      numBuffers: counts.used + counts.free,
      numBytesStored: this.storedBytes,
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
