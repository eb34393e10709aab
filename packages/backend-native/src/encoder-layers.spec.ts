/** Layers of an encoder in one call of the addon: bit for bit the result of their parts, in every precision and kind of weight. */
import { engine } from '@tensorflow/tfjs-core';
import {
  activatedLinear,
  attention,
  dispose,
  encoderLayers,
  layerNorm,
  linear,
  residualLinear,
  split,
  tidy,
} from '@blip2/nn';
import type { EncoderLayer, EncoderLayerOptions, Tensor3D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { afterAll, describe, expect, it } from 'vitest';
import { addon, levels, loaded } from '../spec/fixtures';
import { D, expectSame, F, H, layerCases, random, randomLinear, randomNorm } from '../spec/layers';
import type { Kind } from '../spec/layers';

const shapes: [number, number][] = [
  [3 * D, D],
  [D, D],
  [F, D],
  [D, F],
];

function layerOf(kind: Kind, adapters: readonly number[]): EncoderLayer {
  const linears = shapes.map((shape, i) =>
    randomLinear(kind, shape, { biased: i !== 1, adapted: adapters.includes(i) }),
  );
  return { norms: [randomNorm(), randomNorm()], linears: linears as unknown as EncoderLayer['linears'] };
}

/** The layers from their parts, each a kernel of its own. */
function inParts(layers: readonly EncoderLayer[], x: Tensor3D, o: EncoderLayerOptions): Tensor3D {
  for (const { norms, linears } of layers) {
    const [qkv, projection, fc1, fc2] = linears;
    const [q, k, v] = split(linear(qkv, layerNorm(norms[0], x, o.eps)), 3, 2);
    const y = residualLinear(projection, attention(q!, k!, v!, { numHeads: o.numHeads }), x);
    const f = activatedLinear(o.activation, fc1, layerNorm(norms[1], y, o.eps));
    x = residualLinear(fc2, f, y);
  }
  return x;
}

const title = loaded.addon ? 'encoder layers' : `encoder layers (SKIPPED: ${loaded.why})`;
describe.skipIf(!loaded.addon)(title, () => {
  afterAll(() => addon.setInstructionSet(levels.at(-1)!));

  const check = (
    layers: readonly EncoderLayer[],
    [B, T]: [B: number, T: number],
    activation: 'gelu' | 'relu',
  ) => {
    const x = random<Tensor3D>(B, T, D);
    const options = { numHeads: H, eps: 1e-6, activation };
    for (let again = 0; again < 2; again++) {
      // the second time with packed copies
      const one = tidy(() => encoderLayers(layers, x, options));
      const parts = tidy(() => inParts(layers, x, options));
      expectSame([one], [parts]);
      dispose([one, parts]);
    }
    x.dispose();
  };

  it.each(layerCases)('%s, %s, weights %s: equals its parts', async (level, precision, kind) => {
    await useBackend('native', { precision });
    addon.setInstructionSet(level);
    const [plain, all] = [layerOf(kind, []), layerOf(kind, [0, 1, 2, 3])];
    check([plain], [1, 1], 'gelu');
    check([plain, plain], [2, 37], 'gelu');
    check([all, plain, all], [3, 18], 'gelu');
    check([plain, all], [1, 65], 'relu');
    dispose([plain, all]);
  });

  it('frees its memory, also after an error, which says what does not fit', async () => {
    await useBackend('native', { precision: 'float32' });
    const layer = layerOf('array', []);
    const x = random<Tensor3D>(2, 5, D);
    const pooled = () => (engine().memory() as unknown as { numBytesPooled: number }).numBytesPooled;
    const options = { numHeads: H, eps: 1e-6, activation: 'gelu' } as const;
    const run = () => {
      tidy(() => encoderLayers([layer, layer], x, options)).dispose();
      return pooled();
    };
    const packed = run(); // the packed copies of the weights, which are kept
    expect(run()).toBe(packed);
    expect(() => tidy(() => encoderLayers([layer], x, { ...options, numHeads: 3 }))).toThrow(
      'native encoderLayers: numHeads: expected a divisor of the width 68, found 3',
    );
    expect(pooled()).toBe(packed);
    const [qkv, ...rest] = layer.linears;
    const wrong = { ...layer, linears: [{ ...qkv, weight: random(D, D) }, ...rest] } as never;
    expect(() => tidy(() => encoderLayers([layer, wrong], x, options))).toThrow(
      `NnEncoderLayers: expected weights 4 of shape [${3 * D},${D}]`,
    );
    dispose([layer, x, wrong]);
  });
});
