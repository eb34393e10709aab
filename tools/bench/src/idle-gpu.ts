/** A GPU that computes nothing, so that the backend's buffers for a full-size model can be counted on any machine, in seconds. */

/** Limits of a current GPU. */
const LIMITS = {
  maxStorageBufferBindingSize: 2 ** 31 - 4,
  maxBufferSize: 2 ** 32,
  maxStorageBuffersPerShaderStage: 16,
  maxComputeWorkgroupStorageSize: 48 << 10,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupsPerDimension: 65535,
};

const nothing = () => undefined;

class IdleBuffer {
  readonly size: number;
  readonly usage: number;
  mapState: GPUBufferMapState;

  constructor({ size, usage, mappedAtCreation }: GPUBufferDescriptor) {
    [this.size, this.usage] = [size, usage];
    this.mapState = mappedAtCreation ? 'mapped' : 'unmapped';
  }

  destroy = nothing;
  mapAsync = () => Promise.resolve();
  unmap = () => void (this.mapState = 'unmapped');
  getMappedRange = (at = 0, length = this.size - at) => new ArrayBuffer(length);
}

/** What the backend expects in the global scope; flags as WebGPU defines them. */
const GLOBALS = {
  ...{ GPUBuffer: IdleBuffer, GPUTexture: class {}, GPUMapMode: { READ: 1, WRITE: 2 } },
  GPUBufferUsage: {
    ...{ MAP_READ: 1, MAP_WRITE: 2, COPY_SRC: 4, COPY_DST: 8, INDEX: 16 },
    ...{ VERTEX: 32, UNIFORM: 64, STORAGE: 128, INDIRECT: 256, QUERY_RESOLVE: 512 },
  },
};

/** Reads from it give zeros. */
export function idleGpu(): GPU {
  for (const [name, value] of Object.entries(GLOBALS))
    // those of Dawn, if it is loaded later, would not know its buffers
    Object.defineProperty(globalThis, name, { get: () => value, set: nothing, configurable: true });
  const info = { vendor: 'none', architecture: '', device: '', description: 'a GPU that computes nothing' };
  const adapter = {
    ...{ info, limits: LIMITS, features: new Set(), isFallbackAdapter: false },
    requestDevice: () => Promise.resolve(idleDevice()),
  };
  const gpu: object = { requestAdapter: () => Promise.resolve(adapter) };
  return gpu as GPU;
}

function idleDevice(): object {
  const pass = { setPipeline: nothing, setBindGroup: nothing, dispatchWorkgroups: nothing, end: nothing };
  const encoder = {
    beginComputePass: () => pass,
    copyBufferToBuffer: nothing,
    clearBuffer: nothing,
    finish: () => ({}),
  };
  const pipeline = { getBindGroupLayout: () => ({}) };
  return {
    ...{ limits: LIMITS, features: new Set(), lost: new Promise(nothing), addEventListener: nothing },
    queue: { writeBuffer: nothing, submit: nothing, onSubmittedWorkDone: () => Promise.resolve() },
    createBuffer: (descriptor: GPUBufferDescriptor) => new IdleBuffer(descriptor),
    ...{ createShaderModule: () => ({}), createBindGroup: () => ({}), createCommandEncoder: () => encoder },
    ...{ createComputePipeline: () => pipeline, createComputePipelineAsync: () => Promise.resolve(pipeline) },
    destroy: nothing,
  };
}
