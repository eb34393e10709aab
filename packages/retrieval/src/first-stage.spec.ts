import { fileURLToPath } from 'node:url';
import { dispose, flatten, memory, normal, rngKey, tensor, variable } from '@blip2/nn';
import type { Scalar, Tensor3D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { drawNegatives, firstStageLoss, initFirstStage, togetherOf } from './index';
import type { FirstStage, Pairs, RetrievalModel } from './index';
import { loadRetrievalModel } from './node';

const TINY = fileURLToPath(new URL('../fixtures/tiny', import.meta.url));
let model: RetrievalModel;
beforeAll(async () => {
  await useBackend((await availableBackends()).includes('native') ? 'native' : 'cpu');
  model = await loadRetrievalModel(TINY);
});

const rows = (texts: number[][]) => ({
  input_ids: Int32Array.from(texts.flat()),
  attention_mask: Int32Array.from(texts.flat(), (id) => Number(id !== 0)),
  shape: [texts.length, texts[0].length] as [number, number],
});
const TEXTS = rows([
  [2, 7, 8, 3],
  [2, 9, 3, 0],
  [2, 7, 8, 3],
  [2, 11, 12, 3],
]);
/** The last two are of one image, the first and the third have one text. */
const IMAGES = ['a', 'b', 'c', 'c'];

function pairs(): Pairs {
  const values = normal(rngKey(4), 4 * 17 * 24);
  values.copyWithin(3 * 17 * 24, 2 * 17 * 24, 3 * 17 * 24);
  return {
    tokens: tensor<Tensor3D>(values, [4, 17, 24]),
    rows: TEXTS,
    together: togetherOf(IMAGES, TEXTS),
  };
}

const stageAt = (temperature: number): FirstStage => ({
  ...initFirstStage(model.config, 0),
  temperature: variable(tensor([temperature], [])) as unknown as Scalar,
});

describe('what belongs together', () => {
  it('is pairs of one image, and pairs of one text', () => {
    expect([...pairs().together]).toEqual([1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1, 1]);
  });
});

describe('drawNegatives', () => {
  it.each([
    [0.6, 0.5],
    [-0.2, 0.001],
    [0.0001, 0.001],
    [0.07, 0.07],
  ])('with the temperature %f leaves it at %f', async (given, expected) => {
    const stage = stageAt(given);
    await drawNegatives(model, stage, pairs(), rngKey(1));
    expect((await stage.temperature.data())[0]).toBeCloseTo(expected, 6);
  });

  it('takes none of the same image or text, gives the same again, and leaves no tensors', async () => {
    const [stage, batch] = [stageAt(0.07), pairs()];
    const before = memory().numTensors;
    for (let seed = 0; seed < 40; seed++) {
      const drawn = await drawNegatives(model, stage, batch, rngKey(seed));
      for (const partners of [drawn.imageOfText, drawn.textOfImage])
        partners.forEach((other, b) => expect(batch.together[b * 4 + other]).toBe(0));
      expect(await drawNegatives(model, stage, batch, rngKey(seed))).toEqual(drawn);
    }
    expect(memory().numTensors).toBe(before);
  });
});

describe('firstStageLoss', () => {
  it('is finite for a single pair, which has no wrong partner', async () => {
    const stage = stageAt(0.07);
    const one = rows([[2, 7, 8, 3]]);
    const tokens = tensor<Tensor3D>(normal(rngKey(4), 17 * 24), [1, 17, 24]);
    const batch = { tokens, rows: one, together: togetherOf(['a'], one) };
    const negatives = await drawNegatives(model, stage, batch, rngKey(0));
    expect([...negatives.imageOfText, ...negatives.textOfImage]).toEqual([-1, -1]);
    const value = firstStageLoss(model, stage, { ...batch, negatives, start: 5 });
    expect(Number.isFinite((await value.data())[0])).toBe(true);
    dispose(value);
  });

  it('does not depend on the padding of texts', async () => {
    const [stage, batch] = [stageAt(0.07), pairs()];
    const negatives = await drawNegatives(model, stage, batch, rngKey(0));
    const longer = rows(
      Array.from({ length: 4 }, (_, b) => [...TEXTS.input_ids.slice(4 * b, 4 * b + 4), 0, 0]),
    );
    const values = [TEXTS, longer].map((texts) =>
      firstStageLoss(model, stage, { ...batch, rows: texts, negatives, start: 5 }),
    );
    const [short, long] = await Promise.all(values.map(async (x) => (await x.data())[0]));
    expect(long).toBeCloseTo(short, 4);
  });

  it('begins with a head of its own from the seed', () => {
    const values = (seed: number) =>
      [...flatten(initFirstStage(model.config, seed)).values()].map((x) => String(x.dataSync()));
    expect(values(1)).toEqual(values(1));
    expect(values(1)).not.toEqual(values(2));
  });
});
