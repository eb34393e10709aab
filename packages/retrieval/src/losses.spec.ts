import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { flatten, nest, rngKey, tensor, valueAndGrads, variable } from '@blip2/nn';
import type { Scalar, Tensor, Tensor2D, Tensor3D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { expectClose, get, namesUnder, readGolden, toTensor } from '@blip2/golden';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  contrastiveLoss,
  embedImages,
  embedTexts,
  generationLoss,
  hardNegatives,
  matchingLoss,
} from './index';
import type { RetrievalModel, TextRows, WordHead } from './index';
import { loadRetrievalModel } from './node';

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));
const texts = JSON.parse(readFileSync(`${FIXTURES}golden.json`, 'utf8')) as Record<
  'input_ids' | 'attention_mask',
  number[][]
>;
const B = 3;
const rows: TextRows = {
  input_ids: Int32Array.from(texts.input_ids.slice(0, B).flat()),
  attention_mask: Int32Array.from(texts.attention_mask.slice(0, B).flat()),
  shape: [B, texts.input_ids[0].length],
};

/** The model with Variables where the fixture has gradients, the other inputs, and the three losses. */
async function job() {
  const golden = await readGolden(import.meta.url, 'losses');
  const frozen = await loadRetrievalModel(`${FIXTURES}tiny`, { store_from: Infinity });
  const names = new Set(namesUnder(golden, 'grads.').map((name) => name.slice(name.indexOf('.') + 1)));
  const leaves = new Map(
    [...flatten(frozen.params)].map(([name, x]) => [name, names.has(name) ? variable(x) : x]),
  );
  const model = { ...frozen, params: nest(leaves) as RetrievalModel['params'] };
  const [tokens, temperature] = ['tokens', 'temperature'].map((name) => variable(toTensor(golden, name)));
  const inputs = new Map<string, Tensor>([...leaves, ['tokens', tokens], ['temperature', temperature]]);
  const words = model.params.embeddings!.word_embeddings.weight;
  const own = (name: string) => toTensor(golden, `head.${name}`);
  const transform = nest(
    ['dense.weight', 'dense.bias', 'LayerNorm.weight', 'LayerNorm.bias'].map((name) => [
      name,
      own(`transform.${name}`),
    ]),
  );
  const head = { transform, decoder: { weight: words, bias: own('bias') } } as unknown as WordHead;
  const ids = (name: string) => Int32Array.from(get(golden, name).values);
  const negatives = { imageOfText: ids('image_of_text'), textOfImage: ids('text_of_image') };
  const images = tokens as unknown as Tensor3D;
  const losses: Record<string, () => Scalar> = {
    contrastive: () =>
      contrastiveLoss(embedImages(model, images), embedTexts(model, rows), temperature as unknown as Scalar),
    matching: () => matchingLoss(model, images, rows, negatives),
    generation: () => generationLoss(model, head, { tokens: images, rows, start: 5 }),
  };
  return { golden, inputs, losses };
}

describe.each(await availableBackends())("the first stage's losses on %s", (backend) => {
  beforeAll(async () => void (await useBackend(backend)));

  it.each(['contrastive', 'matching', 'generation'])(
    '%s: value and gradients equal those of LAVIS',
    async (name) => {
      const { golden, inputs, losses } = await job();
      const named = namesUnder(golden, `grads.${name}.`);
      const { value, grads } = valueAndGrads(
        losses[name],
        named.map((leaf) => inputs.get(leaf)!),
      );
      const [expected] = get(golden, name).values;
      expect(Math.abs((await value.data())[0] / expected - 1)).toBeLessThan(2e-6);
      expect(named.length).toBeGreaterThan(4);
      named.forEach((leaf, i) =>
        expectClose(grads[i], get(golden, `grads.${name}.${leaf}`), 1e-4, { floor: 1e-2 }),
      );
    },
  );
});

it.each(await availableBackends())('a single pair has no contrastive loss on %s', async (backend) => {
  await useBackend(backend);
  const text = tensor([0.6, 0.8, 0], [1, 3]) as Tensor2D;
  const images = tensor([1, 0, 0, 0, 1, 0], [1, 2, 3]) as Tensor3D;
  const value = contrastiveLoss(images, text, tensor([0.07], []) as Scalar);
  expect((await value.data())[0]).toBe(0);
});

describe('hard negatives', () => {
  const similarities = Float32Array.from([0.9, 0.8, 0.1, 0.2, 0.9, 0.1, 0.1, 0.2, 0.9]);

  it('are never the partner, and mostly the nearest', () => {
    const counts = new Map<number, number>();
    for (let seed = 0; seed < 300; seed++) {
      const { imageOfText, textOfImage } = hardNegatives(similarities, 0.07, rngKey(seed));
      for (const found of [imageOfText, textOfImage])
        found.forEach((other, b) => {
          expect(other).not.toBe(b);
          expect(other >= 0 && other < 3).toBe(true);
        });
      counts.set(textOfImage[0], (counts.get(textOfImage[0]) ?? 0) + 1);
    }
    expect(counts.get(1)).toBeGreaterThan(270);
    expect(hardNegatives(similarities, 0.07, rngKey(1))).toEqual(
      hardNegatives(similarities, 0.07, rngKey(1)),
    );
  });

  it.each([[[]], [[1, 2, 3]], [[1, NaN, 2, 3]]])('refuses %j', (values) => {
    expect(() => hardNegatives(Float32Array.from(values), 0.07, rngKey(0))).toThrow('of all pairs');
  });

  it('are the nearest image of a text and the nearest text of an image', () => {
    const uneven = Float32Array.from([0.9, 0.1, 0.8, 0.6, 0.9, 0.1, 0.1, 0.7, 0.9]);
    const counts = [0, 0];
    for (let seed = 0; seed < 100; seed++) {
      const { imageOfText, textOfImage } = hardNegatives(uneven, 0.07, rngKey(seed));
      if (String(imageOfText) === '1,2,0') counts[0]++;
      if (String(textOfImage) === '2,0,1') counts[1]++;
    }
    expect(Math.min(...counts)).toBeGreaterThan(90);
  });

  it('are never of the same picture or text, and there are none where all belong together', () => {
    const together = Uint8Array.from([1, 1, 0, 1, 1, 0, 0, 0, 1]);
    for (let seed = 0; seed < 50; seed++) {
      const { imageOfText, textOfImage } = hardNegatives(similarities, 0.07, rngKey(seed), together);
      expect([...imageOfText.slice(0, 2), ...textOfImage.slice(0, 2)]).toEqual([2, 2, 2, 2]);
    }
    const none = hardNegatives(similarities, 0.07, rngKey(0), new Uint8Array(9).fill(1));
    expect([...none.imageOfText, ...none.textOfImage]).toEqual([-1, -1, -1, -1, -1, -1]);
    expect(hardNegatives(Float32Array.of(0.3), 0.07, rngKey(0)).textOfImage).toEqual(Int32Array.of(-1));
  });
});
