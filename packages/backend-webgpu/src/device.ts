/** Finds an adapter and opens a device with all of its limits. */
import type { Level, MatrixShape } from './tiles';

export interface WebGpuOptions {
  /** `navigator.gpu` of a browser, or what the package `webgpu` creates in Node. */
  gpu: GPU;
  /** Whether an adapter that computes on the processor may be used; false by default. */
  software?: boolean;
  /** The most that the shaders of bfloat16 products may use: all that the adapter has, by default. */
  level?: Level;
  /** Keeps what was measured on this adapter; without it, tiles have their usual sizes. */
  measurements?: Measurements;
}

/** Texts by a key, kept between runs. */
export interface Measurements {
  read(key: string): string | undefined;
  write(key: string, text: string): void;
}

export interface Adapter {
  vendor: string;
  architecture: string;
  /** The driver's name of the device, such as a number. */
  device: string;
  /** Of the driver, with its version. */
  description: string;
  /** It computes on the processor. */
  software: boolean;
  /** Whether shaders have 16-bit floats. */
  float16: boolean;
  /** Subgroup matrices that the kernels can use. */
  matrixShape?: MatrixShape;
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
type Info = GPUAdapterInfo & {
  isFallbackAdapter?: boolean;
  subgroupMinSize?: number;
  subgroupMaxSize?: number;
  subgroupMatrixConfigs?: readonly MatrixConfig[];
};
type MatrixConfig = Pick<MatrixShape, 'M' | 'N' | 'K'> & {
  componentType: string;
  resultComponentType: string;
};
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
export async function openDevice({ gpu, software = false, level }: WebGpuOptions): Promise<OpenDevice> {
  const found = (await gpu.requestAdapter({ powerPreference: 'high-performance' })) as NamedAdapter | null;
  if (!found)
    throw new Error('no adapter: expected a GPU with a Vulkan, Metal or Direct3D 12 driver, found none');
  const adapter = describe(found, level);
  if (adapter.software && !software) throw new Error(softwareOnly(adapter));
  if (found.limits.maxStorageBuffersPerShaderStage < BUFFERS)
    throw new Error(
      `${adapterName(adapter)}: expected ${BUFFERS} storage buffers for a shader, found ${found.limits.maxStorageBuffersPerShaderStage}`,
    );
  const device = await found.requestDevice({
    requiredFeatures: featuresOf(adapter, found.features),
    requiredLimits: limitsOf(found),
  });
  return { gpu, device, adapter, info: found.info };
}

const MATRICES = 'chromium-experimental-subgroup-matrix';

function featuresOf({ float16, matrixShape }: Adapter, has: ReadonlySet<string>): GPUFeatureName[] {
  const used = [...(float16 ? ['shader-f16'] : []), ...(matrixShape ? ['subgroups', MATRICES] : [])];
  const names = [...used, 'timestamp-query'].filter((name) => has.has(name));
  return names as GPUFeatureName[]; // the types are older
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

function describe(adapter: NamedAdapter, level: Level = 'matrices'): Adapter {
  const { limits, features } = adapter;
  const { vendor, architecture, device, description } = adapter.info;
  const { isFallbackAdapter = adapter.isFallbackAdapter } = adapter.info;
  const float16 = features.has('shader-f16') && level !== 'float32';
  return {
    ...{ vendor, architecture, device, description },
    software: isFallbackAdapter || SOFTWARE.test(`${architecture} ${description}`),
    float16,
    ...(float16 && level === 'matrices' && matricesOf(adapter)),
    largestBinding: limits.maxStorageBufferBindingSize,
    sharedBytes: limits.maxComputeWorkgroupStorageSize,
    threads: limits.maxComputeInvocationsPerWorkgroup,
  };
}

/** The largest subgroup matrices with sums in float32. */
function matricesOf({ features, info }: NamedAdapter): Pick<Adapter, 'matrixShape'> {
  const { subgroupMinSize: least, subgroupMaxSize: subgroup, subgroupMatrixConfigs = [] } = info;
  if (!(features as ReadonlySet<string>).has(MATRICES) || !subgroup) return {};
  const shapes = [...subgroupMatrixConfigs].flatMap(
    ({ componentType: numbers, resultComponentType, M, N, K }): MatrixShape[] =>
      resultComponentType === 'f32' && (numbers === 'f16' || numbers === 'f32')
        ? [{ M, N, K, numbers, subgroup, varies: least !== subgroup }]
        : [],
  );
  const rate = ({ M, N, K, numbers }: MatrixShape) => M * N * K * (numbers === 'f16' ? 2 : 1);
  const usable = shapes.filter(({ M, N, K }) => [M, N, K].every((n) => [4, 8, 16].includes(n)));
  const matrixShape = usable.sort((a, b) => rate(b) - rate(a))[0];
  return matrixShape ? { matrixShape } : {};
}
