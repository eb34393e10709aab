import { attention, tensor, tidy } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { describe, expect, it } from 'vitest';
import { useSoftwareDriver } from '../spec/software';

const N = 401;

describe.skipIf(!useSoftwareDriver())('a softmax on WebGPU', () => {
  it('has shares within 3e-7, relatively, also of scores that differ by 20', async () => {
    await useBackend('webgpu');
    const scores = Float32Array.from({ length: N }, (_, i) => -20 + i / 20);
    // One query and two keys for each item: the scores are [score, 0], the values 1 and 0.
    const pair = () =>
      tensor(
        Float32Array.from({ length: 2 * N }, (_, i) => 1 - (i % 2)),
        [N, 2, 1],
      ) as Tensor3D;
    const out = tidy(() => {
      const q = tensor(scores, [N, 1, 1]) as Tensor3D;
      return attention(q, pair(), pair(), { numHeads: 1, scale: 1 });
    });
    const found = await out.data();
    out.dispose();
    const errors = Array.from(scores, (score, i) => {
      const share = 1 / (1 + Math.exp(-score));
      return Math.abs(found[i] - share) / share;
    });
    expect(Math.max(...errors)).toBeLessThan(3e-7);
  });

  it('is not a number if a score is not', async () => {
    await useBackend('webgpu');
    const out = tidy(() => {
      const one = tensor([1, 1], [1, 2, 1]) as Tensor3D;
      const keys = tensor([1, NaN], [1, 2, 1]) as Tensor3D;
      return attention(one, keys, one, { numHeads: 1, scale: 1 });
    });
    expect([...(await out.data())]).toEqual([NaN, NaN]);
    out.dispose();
  });
});
