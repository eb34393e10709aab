/** Finds an adapter and opens a device with all of its limits. */

export interface WebGpuOptions {
  /** `navigator.gpu` of a browser, or what the package `webgpu` creates in Node. */
  gpu: GPU;
  /** Whether an adapter that computes on the processor may be used; false by default. */
  software?: boolean;
}

export interface Adapter {
  vendor: string;
  architecture: string;
  description: string;
  /** It computes on the processor. */
  software: boolean;
  /** Whether shaders have 16-bit floats. */
  float16: boolean;
  /** Most bytes of one buffer that a shader reads. */
  largestBinding: number;
  /** Bytes of memory that the threads of a group share. */
  sharedBytes: number;
  /** Most threads of a group. */
  threads: number;
}

export interface OpenDevice {
  /** Dawn answers nothing any more when this was collected as garbage. */
  gpu: GPU;
  device: GPUDevice;
  adapter: Adapter;
  info: GPUAdapterInfo;
}

/** What tfjs's version of the types lacks. */
type Info = GPUAdapterInfo & { isFallbackAdapter?: boolean };
type NamedAdapter = GPUAdapter & { info: Info };

/** Storage buffers that the kernels of this package bind at once. */
const BUFFERS = 9;

/** What a message calls the adapter. */
export function adapterName({ vendor, architecture, description }: Adapter): string {
  return description || [vendor, architecture].filter(Boolean).join(' ') || 'unnamed adapter';
}

export function softwareOnly(adapter: Adapter): string {
  return `expected a GPU, found only ${adapterName(adapter)}, which computes on the processor: the backend native is faster`;
}

/** @throws Error if there is no such adapter, or it lacks what the kernels need */
export async function openDevice({ gpu, software = false }: WebGpuOptions): Promise<OpenDevice> {
  const found = (await gpu.requestAdapter({ powerPreference: 'high-performance' })) as NamedAdapter | null;
  if (!found)
    throw new Error('no adapter: expected a GPU with a Vulkan, Metal or Direct3D 12 driver, found none');
  const adapter = describe(found);
  if (adapter.software && !software) throw new Error(softwareOnly(adapter));
  if (found.limits.maxStorageBuffersPerShaderStage < BUFFERS)
    throw new Error(
      `${adapterName(adapter)}: expected ${BUFFERS} storage buffers for a shader, found ${found.limits.maxStorageBuffersPerShaderStage}`,
    );
  const device = await found.requestDevice({
    requiredFeatures: (['shader-f16', 'timestamp-query'] as const).filter((name) => found.features.has(name)),
    requiredLimits: limitsOf(found),
  });
  return { gpu, device, adapter, info: found.info };
}

/** All limits of the adapter; a device has the smallest ones unless it is asked for more. */
function limitsOf({ limits }: GPUAdapter): Record<string, number> {
  const all: Record<string, number> = {};
  for (const name in limits) {
    const limit = limits[name as keyof GPUSupportedLimits];
    if (typeof limit === 'number') all[name] = limit;
  }
  return all;
}

/** Names of drivers that compute on the processor. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|software|basic render/i;

function describe(adapter: NamedAdapter): Adapter {
  const { limits, features } = adapter;
  const { vendor, architecture, description, isFallbackAdapter = adapter.isFallbackAdapter } = adapter.info;
  return {
    ...{ vendor, architecture, description },
    software: isFallbackAdapter || SOFTWARE.test(`${architecture} ${description}`),
    float16: features.has('shader-f16'),
    largestBinding: limits.maxStorageBufferBindingSize,
    sharedBytes: limits.maxComputeWorkgroupStorageSize,
    threads: limits.maxComputeInvocationsPerWorkgroup,
  };
}
