import { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu';
import type { backend_util, DataType, TensorInfo } from '@tensorflow/tfjs-core';
import { BufferPool } from './buffer-pool';
import { Constants } from './constants';
import type { Adapter, OpenDevice } from './device';
import { failureOf } from './failure';
import { bytesOf, keyOf, sourceOf } from './program';
import type { Grid, Program, Uniform } from './program';

/** Dispatches that are recorded before they are submitted, and the bytes that freed tensors among them may hold. */
const BATCH = 64;
const BATCH_BYTES = 256 << 20;

/** tfjs's backend with the buffers, the errors and the kernels of this package. Reads are asynchronous only. */
export class GpuBackend extends WebGPUBackend {
  readonly adapter: Adapter;
  readonly gpu: GPU;
  private readonly pool: BufferPool;
  private readonly constants: Constants;
  private readonly pipelines = new Map<string, GPUComputePipeline>();
  /** Bound in place of an optional tensor that is absent. */
  private readonly absent: GPUBuffer;
  private readonly failure: ReturnType<typeof failureOf>;

  constructor({ gpu, device, adapter, info }: OpenDevice) {
    super(device, info);
    this.gpu = gpu;
    this.adapter = adapter;
    this.failure = failureOf(device, adapter);
    this.pool = new BufferPool(device);
    // tfjs uses these members only
    this.bufferManager = this.pool as Pick<BufferPool, keyof BufferPool> as never;
    this.constants = new Constants(device);
    this.absent = device.createBuffer({ size: 256, usage: GPUBufferUsage.STORAGE });
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
    const buffers = bound.map((one) => this.bufferOf(one));
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
  copy(from: TensorInfo, to: GPUBuffer, at: number, bytes: number): void {
    const source = this.bufferOf(from);
    this.ensureCommandEncoderReady();
    this.endComputePassEncoder();
    this['commandEncoder'].copyBufferToBuffer(source, 0, to, at, bytes);
    this.recorded();
  }

  private recorded(): void {
    this['dispatchCountInPass']++;
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

  /** The buffer of a tensor, which is uploaded if it is not on the GPU. */
  private bufferOf(one: TensorInfo | GPUBuffer | undefined): GPUBuffer {
    if (!one) return this.absent;
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
    const bytes = 4 * shape.reduce((size, n) => size * n, 1);
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
