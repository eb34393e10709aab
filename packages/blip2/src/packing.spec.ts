/** Rows that share pictures, without pads, compared with separate padded rows: loss, every gradient, and what each row can see. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  crossEntropy,
  gatherRows,
  replaceLeaves,
  reshape,
  rngKey,
  tidy,
  trainableLeaves,
  valueAndGrads,
  variable,
} from '@blip2/nn';
import type { Scalar, Tensor, Tensor2D, Tensor3D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { firstDifference, random } from '@blip2/nn/conformance';
import { relativeError, tiny } from '../spec/golden';
import { forward, loss } from './index';
import type { Blip2, Blip2Options, ImageInput, TokenBatch } from './index';
import { loadFolder } from './node';
import { pack } from './packing';

const [Q, IMAGE, PAD, D] = [4, 58, 1, 24];
/** Everything that can train before and in the text model. */
const trains = (name: string) => /^(qformer|query_tokens|language_projection|language_model)/.test(name);

/** Rows of Q image tokens and a text of each of these lengths, with its last tokens labelled. */
function rows(
  lengths: number[],
  pictures?: number[],
  side: 'right' | 'left' = 'right',
): TokenBatch & { labels: Int32Array } {
  const T = Q + Math.max(...lengths);
  const B = lengths.length;
  const input_ids = new Int32Array(B * T).fill(PAD);
  const attention_mask = new Int32Array(B * T);
  const labels = new Int32Array(B * T).fill(-100);
  lengths.forEach((length, b) => {
    const at = b * T + (side === 'left' ? T - Q - length : 0);
    attention_mask.fill(1, at, at + Q + length);
    input_ids.fill(IMAGE, at, at + Q);
    for (let t = 0; t < length; t++) input_ids[at + Q + t] = t === 0 ? 2 : 4 + ((7 * b + 3 * t) % 50);
    for (let t = 1; t < length; t++) labels[at + Q + t] = input_ids[at + Q + t];
  });
  return {
    input_ids,
    attention_mask,
    labels,
    shape: [B, T],
    ...(pictures && { pictures: Int32Array.from(pictures) }),
  };
}

/** The image of each row. */
const each = ({ image_features: x }: { image_features: Tensor3D }, pictures: number[]) => ({
  image_features: gatherRows(x, Int32Array.from(pictures)),
});

/** The loss from the logits of the padded rows [B, T, V]. */
function paddedLoss(
  model: Blip2,
  image: ImageInput,
  tokens: TokenBatch & { labels: Int32Array },
  o: Blip2Options = {},
): Scalar {
  const { logits } = forward(model, image, tokens, o);
  const [B, T, V] = logits.shape;
  const at = Array.from({ length: B * T }, (_, i) => i).filter(
    (i) => i % T < T - 1 && tokens.labels[i + 1] >= 0,
  );
  const flat = gatherRows(reshape<Tensor2D>(logits, [B * T, V]), Int32Array.from(at));
  return crossEntropy(
    flat,
    Int32Array.from(at, (i) => tokens.labels[i + 1]),
  );
}

const CASES: Record<string, { pictures: number[]; lengths: number[] }> = {
  'one caption of each picture': { pictures: [0, 1, 2], lengths: [5, 2, 7] },
  'two captions of each picture': { pictures: [0, 0, 1, 1], lengths: [3, 6, 4, 2] },
  'five captions of a picture': { pictures: [0, 0, 0, 0, 0], lengths: [3, 6, 4, 2, 9] },
  'five captions of each of two pictures': {
    pictures: [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    lengths: [3, 6, 4, 2, 9, 5, 3, 8, 2, 6],
  },
  'one, two and five captions, not in order': {
    pictures: [2, 0, 2, 1, 2, 1, 2, 2],
    lengths: [3, 6, 4, 2, 9, 5, 5, 2],
  },
};

describe.each(await availableBackends())('shared pictures on %s', (backend) => {
  let model: Blip2;
  let leaves: [string, Tensor][];
  beforeAll(async () => {
    await useBackend(backend, { precision: 'float32' });
    const base = await loadFolder(tiny);
    const params = replaceLeaves(base.params, (name, t) => (trains(name) ? variable(t, name) : t));
    model = { ...base, params };
    leaves = [...trainableLeaves(params)];
  });
  afterAll(() => leaves.forEach(([, leaf]) => leaf.dispose()));

  const features = (P: number) => {
    const { image_size, patch_size, hidden_size } = model.config.vision_config;
    return {
      image_features: random<Tensor3D>('features', P, (image_size / patch_size) ** 2 + 1, hidden_size),
    };
  };
  const run = async (f: () => Scalar) => {
    const xs = leaves.map(([, leaf]) => leaf);
    const { value, grads } = tidy(() => valueAndGrads(f, xs));
    const floats = (await Promise.all(grads.map((g) => g.data()))) as Float32Array[];
    return { loss: (await value.data())[0], grads: floats };
  };
  const sizeOf = (x: Float32Array) => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  /** The relative difference of the gradients of each part, as one vector. */
  const partErrors = (is: Awaited<ReturnType<typeof run>>, should: typeof is) => {
    const error = (part: (name: string) => boolean) => {
      let [difference, norm] = [0, 0];
      for (const [i, [name]] of leaves.entries())
        if (part(name))
          should.grads[i].forEach((x, j) => {
            difference += (is.grads[i][j] - x) ** 2;
            norm += x ** 2;
          });
      return Math.sqrt(difference / norm);
    };
    const isText = (name: string) => name.startsWith('language_model');
    return { text: error(isText), before: error((name) => !isText(name)) };
  };
  /** Compares the loss, the gradients of each part, and each gradient by its largest element. */
  const expectSame = (is: Awaited<ReturnType<typeof run>>, should: typeof is, most = 1e-6) => {
    expect(Math.abs(is.loss / should.loss - 1)).toBeLessThan(1e-6);
    const largest = Math.max(...should.grads.map(sizeOf));
    for (const [i, [name]] of leaves.entries()) {
      const [found, expected] = [is.grads[i], should.grads[i]];
      // The gradient of the bias of k_proj is zero but for rounding, so it is compared with the largest gradient.
      const zero = sizeOf(expected) < 1e-5 * largest;
      expect(zero ? sizeOf(found) / largest : relativeError(found, expected), name).toBeLessThan(1e-5);
    }
    const { text, before } = partErrors(is, should);
    expect(text).toBeLessThan(1e-6);
    expect(before).toBeLessThan(most);
  };

  it.each(Object.entries(CASES))(
    '%s: loss and gradients are those of separate padded rows',
    async (_, { pictures, lengths }) => {
      const image = features(Math.max(...pictures) + 1);
      for (const side of ['right', 'left'] as const) {
        const tokens = rows(lengths, undefined, side);
        const separate = await run(() => loss(model, each(image, pictures), tokens));
        const shared = rows(lengths, pictures, side);
        // The Q-Former multiplies the 4 queries of a single picture by a kernel for few rows, which adds in another order; TensorFlow does for other sizes, too.
        const most = pictures.every((picture) => picture === 0) || backend === 'tensorflow' ? 2e-6 : 1e-6;
        expectSame(await run(() => loss(model, image, shared)), separate, most);
        expectSame(await run(() => loss(model, image, shared, { checkpoint: true })), separate, most);
        expectSame(await run(() => paddedLoss(model, each(image, pictures), tokens)), separate);
      }
    },
  );

  it('gives a wrong loss for a row that sees the picture of another', async () => {
    const { pictures, lengths } = CASES['two captions of each picture'];
    const value = async (order: number[]) =>
      (await run(() => loss(model, features(2), rows(lengths, order)))).loss;
    const right = await value(pictures);
    expect(Math.abs((await value([0, 1, 1, 1])) - right)).toBeGreaterThan(1e-4);
    expect(Math.abs((await value([1, 1, 0, 0])) - right)).toBeGreaterThan(1e-4);
  });

  it('packs whole rows if one does not begin with its image', async () => {
    const tokens = rows([3, 4, 6]);
    const [, T] = tokens.shape;
    [tokens.input_ids[T], tokens.input_ids[T + Q]] = [2, IMAGE]; // the first token of row 1 is before its image
    expect(pack(model.config, tokens, 3).batch).toMatchObject({ packing: { prefixes: 0 } });
    const expected = await run(() => paddedLoss(model, each(features(2), [1, 0, 1]), tokens));
    const shared = { ...tokens, pictures: Int32Array.of(1, 0, 1) };
    expectSame(await run(() => loss(model, features(2), shared)), expected);
    expectSame(await run(() => loss(model, each(features(2), [1, 0, 1]), tokens)), expected);
  });

  it('predicts labels of the first text token and of image positions as separate rows do', async () => {
    const { pictures, lengths } = CASES['two captions of each picture'];
    const tokens = rows(lengths);
    const [B, T] = tokens.shape;
    for (let b = 0; b < B; b++) for (let t = 0; t <= Q; t++) tokens.labels[b * T + t] = 5 + b + t;
    const expected = await run(() => paddedLoss(model, each(features(2), pictures), tokens));
    const shared = { ...tokens, pictures: Int32Array.from(pictures) };
    expectSame(await run(() => loss(model, features(2), shared)), expected);
  });

  it('draws dropout of a picture once, and of texts for each row', async () => {
    const tokens = rows([4, 4], [0, 0]);
    tokens.input_ids.copyWithin(tokens.shape[1], 0, tokens.shape[1]);
    tokens.labels.copyWithin(tokens.shape[1], 0, tokens.shape[1]);
    const states: Tensor[] = [];
    const tap = (name: string, x: Tensor) =>
      void (name === 'language_model.hidden_states.1' && states.push(x));
    tidy(() => {
      loss(model, features(1), tokens, { dropout: { language_model: rngKey(3) }, tap });
      const [N, width] = states[0].shape;
      expect([N, width]).toEqual([Q + 8, D]);
      const values = states[0].dataSync() as Float32Array;
      const text = (b: number) => values.slice((Q + 4 * b) * D, (Q + 4 * b + 4) * D);
      expect(firstDifference(text(0), text(1), 1e-2)).toBeDefined();
    });
    const evaluated: Tensor[] = [];
    tidy(() => {
      loss(model, features(1), tokens, {
        tap: (name, x) => void (name === 'language_model.hidden_states.1' && evaluated.push(x)),
      });
      const values = evaluated[0].dataSync() as Float32Array;
      const text = (b: number) => values.slice((Q + 4 * b) * D, (Q + 4 * b + 4) * D);
      // equal but for the roundings of TensorFlow's matmul, which depend on the place of a row
      expect(firstDifference(text(0), text(1), 1e-5)).toBeUndefined();
    });
  });

  it('refuses pictures that do not fit, and labels that padding would predict', () => {
    const act = (change: Partial<TokenBatch>) => () =>
      loss(model, features(2), { ...rows([3, 4], [0, 1]), ...change });
    const expected = 'pictures: expected [2], with each of 0 … 1 (images), found ';
    expect(act({ pictures: Int32Array.of(0, 2) })).toThrow(`${expected}2`);
    expect(act({ pictures: Int32Array.of(0) })).toThrow(`${expected}1 values`);
    expect(act({ pictures: Int32Array.of(1, 1) })).toThrow(`${expected}no row of 0`);
    const { attention_mask } = rows([3, 4]);
    expect(act({ attention_mask: attention_mask.with(5, 0) })).toThrow(
      'labels: expected −100 where the position before is padding (attention_mask 0), found ',
    );
    expect(act({ attention_mask: attention_mask.with(0, 2) })).toThrow(
      'attention_mask: expected 0 and 1, found 2',
    );
  });
});
