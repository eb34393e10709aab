/** Training steps use the same buffers again and again, and errors of the GPU have names. */
import * as nn from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { memory } from '@tensorflow/tfjs-core';
import { beforeAll, describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../spec/software';

const floats = (seed: number, ...shape: number[]) => {
  const size = shape.reduce((a, b) => a * b, 1);
  return nn.tensor(nn.normal(nn.rngKey(seed), size), shape);
};

/** A small model with an adapter, attention and the fused loss; T positions, which differ from step to step. */
function stepOf() {
  const weight = floats(1, 32, 32) as nn.Tensor2D;
  const head = floats(2, 50, 32) as nn.Tensor2D;
  const slots = [floats(3, 4, 32), floats(4, 32, 4)].map((x) => ({
    param: nn.variable(x),
    m: nn.variable(nn.zeros(x.shape)),
    v: nn.variable(nn.zeros(x.shape)),
  }));
  const [A, B] = slots.map(({ param }) => param as unknown as nn.Tensor2D);
  const lora = { lora_A: { weight: A }, lora_B: { weight: B }, scaling: 2, dropout: 0.1 };
  return async (step: number) => {
    const T = 3 + (step % 5);
    const loss = nn.tidy(() => {
      const forward = () => {
        const x = floats(5, 2, T, 32) as nn.Tensor3D;
        const h = nn.linear({ weight, lora }, x, nn.fold(nn.rngKey(6), step));
        const y = nn.attention(h, h, h, { numHeads: 4, causal: true });
        const labels = Int32Array.from({ length: 2 * T }, (_, i) => (i * 7) % 50);
        return nn.linearCrossEntropy({ weight: head }, nn.reshape(y, [2 * T, 32]), labels);
      };
      const { value, grads } = nn.valueAndGrads(forward, [A, B]);
      const scale = nn.clipScale(nn.globalNorm(grads), 1);
      const updates = slots.map((slot, i) => ({ ...slot, grad: grads[i], weightDecay: 0.01 }));
      nn.adamW(updates, scale, { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, step: step + 1 });
      return value;
    });
    const [value] = await loss.data();
    loss.dispose();
    return value;
  };
}

describe.skipIf(!useSoftwareDriver())('a run on WebGPU', () => {
  beforeAll(async () => void (await useBackend('webgpu')));

  it(
    'has as many tensors, buffers and bytes after 500 steps as after 20, and a lower loss',
    { timeout: 300_000 },
    async () => {
      const step = stepOf();
      const losses: number[] = [];
      for (let i = 0; i < 20; i++) losses.push(await step(i));
      const before = memory();
      for (let i = 20; i < 500; i++) losses.push(await step(i));
      expect(memory()).toEqual(before);
      expect(losses[495]).toBeLessThan(losses[0]); // of batches of the same length
    },
  );

  it('is not what auto takes on an adapter that computes on the processor', async () => {
    expect((await useBackend('auto')).name).not.toBe('webgpu');
  });

  it('refuses a synchronous read', async () => {
    await useBackend('webgpu');
    const x = nn.exp(floats(1, 2000));
    expect(() => x.dataSync()).toThrow('expected an asynchronous read (await x.data())');
    x.dispose();
  });
});
