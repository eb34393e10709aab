/** What is taken of an adapter, with adapters that a test makes up. */
import { describe, expect, it } from 'vitest';
import { openDevice } from './device';
import type { Level } from './tiles';

const MATRICES = 'chromium-experimental-subgroup-matrix';
const config = (componentType: string, resultComponentType: string, M: number, N: number, K: number) => ({
  ...{ componentType, resultComponentType, M, N, K },
});
const NVIDIA = [
  config('f16', 'f16', 16, 16, 16),
  config('f16', 'f32', 16, 8, 8),
  config('f16', 'f32', 16, 16, 16),
  config('u8', 'u32', 16, 16, 32),
];
const APPLE = [config('f32', 'f32', 8, 8, 8), config('f16', 'f16', 8, 8, 8)];

interface Made {
  features?: string[];
  configs?: object[];
  sizes?: [number, number];
  level?: Level;
}

/** Opens a device, and returns what is known of its adapter and which features it was asked for. */
async function opened({ features = ['shader-f16', MATRICES], configs, sizes = [32, 32], level }: Made) {
  let asked: string[] = [];
  const adapter = {
    features: new Set(features),
    limits: { maxStorageBuffersPerShaderStage: 10 },
    info: {
      ...{ vendor: 'v', architecture: 'a', device: 'd', description: 'Card X' },
      ...{ subgroupMinSize: sizes[0], subgroupMaxSize: sizes[1], subgroupMatrixConfigs: configs },
    },
    requestDevice: async ({ requiredFeatures }: { requiredFeatures: string[] }) => {
      asked = requiredFeatures;
      return {};
    },
  };
  const gpu = { requestAdapter: async () => adapter } as unknown as GPU;
  return { ...(await openDevice({ gpu, level })).adapter, asked };
}

describe('an adapter', () => {
  it('gives its largest matrices with sums in float32', async () => {
    const { matrixShape, asked } = await opened({ configs: NVIDIA });
    expect(matrixShape).toEqual({ M: 16, N: 16, K: 16, numbers: 'f16', subgroup: 32, varies: false });
    expect(asked).toEqual(['shader-f16', MATRICES]);
  });

  it('gives matrices in float32 if those in 16 bits sum in 16 bits, as on Apple', async () => {
    expect((await opened({ configs: APPLE })).matrixShape).toMatchObject({ K: 8, numbers: 'f32' });
  });

  it('gives the most threads of a subgroup if their number varies', async () => {
    const { matrixShape } = await opened({ configs: NVIDIA, sizes: [32, 64] });
    expect(matrixShape).toMatchObject({ subgroup: 64, varies: true });
  });

  it.each([
    ['without the feature', { features: ['shader-f16'], configs: NVIDIA }],
    ['without 16-bit floats', { features: [MATRICES], configs: NVIDIA }],
    ['without sums in float32', { configs: [NVIDIA[0], NVIDIA[3]] }],
    ['without a list', {}],
  ])('%s gives no matrices', async (_, made) => {
    const { matrixShape, asked } = await opened(made);
    expect(matrixShape).toBeUndefined();
    expect(asked).not.toContain(MATRICES);
  });

  it('gives no more than the level that was asked for', async () => {
    const float16 = await opened({ configs: NVIDIA, level: 'float16' });
    expect([float16.matrixShape, float16.float16, float16.asked]).toEqual([undefined, true, ['shader-f16']]);
    const float32 = await opened({ configs: NVIDIA, level: 'float32' });
    expect([float32.matrixShape, float32.float16, float32.asked]).toEqual([undefined, false, []]);
  });
});
