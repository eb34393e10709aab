import { add, mul, sum, trainableLeaves, valueAndGrads, variable } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import type { Scalar, Tensor, Tensor3D } from '@blip2/nn';
import { beforeAll, describe, expect, it } from 'vitest';
import { expectClose, get, namesUnder, readGolden, toTensor, weightTree } from '@blip2/golden';
import type { Golden } from '@blip2/golden';
import { parseQFormerConfig, qformerWeights, queryImages, readTexts } from './index';
import type { QFormerModel } from './index';

const read = () => readGolden(import.meta.url, 'qformer-texts');
const config = (golden: Golden) => parseQFormerConfig(golden.config);
const inputs = (golden: Golden) => ({
  queries: toTensor<Tensor3D>(golden, 'query_tokens'),
  image: toTensor<Tensor3D>(golden, 'image_features'),
  texts: { embeds: toTensor<Tensor3D>(golden, 'embeds'), mask: Int32Array.from(get(golden, 'mask').values) },
});

/** Rows that are no padding; transformers computes the others, but nothing reads them. */
const visible = (golden: Golden, name: string, rows: Tensor3D) =>
  mul(rows, toTensor(golden, name)) as Tensor3D;

describe.each(await availableBackends())('texts on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend)));

  it('alone and beside queries, equal transformers', async () => {
    const golden = await read();
    const p = weightTree<QFormerModel>(golden);
    const { queries, image, texts } = inputs(golden);
    const cfg = config(golden);
    for (const [name, found] of [
      ['alone', readTexts(p, texts, cfg)],
      ['both', queryImages(p, queries, image, cfg, { texts })],
    ] as const) {
      const expected = visible(golden, `weight_${name}`, toTensor<Tensor3D>(golden, name));
      const values = (await expected.data()) as Float32Array;
      expectClose(visible(golden, `weight_${name}`, found), { ...get(golden, name), values }, 1e-5);
    }
  });

  it.each([false, true])('equal transformers in every gradient (checkpoint %s)', async (checkpoint) => {
    const golden = await read();
    const p = weightTree<QFormerModel>(golden, () => true);
    const { image, texts } = inputs(golden);
    const own = (name: string) => variable(toTensor(golden, name)) as unknown as Tensor3D;
    const [queries, embeds, features] = [
      own('query_tokens'),
      own('embeds'),
      variable(image) as unknown as Tensor3D,
    ];
    const leaves = new Map<string, Tensor>([
      ...trainableLeaves(p),
      ['query_tokens', queries],
      ['embeds', embeds],
      ['image_features', features],
    ]);
    const [cfg, with_texts] = [config(golden), { embeds, mask: texts.mask }];
    const loss = () =>
      add(
        sum<Scalar>(visible(golden, 'weight_alone', readTexts(p, with_texts, cfg, { checkpoint }))),
        sum<Scalar>(
          visible(
            golden,
            'weight_both',
            queryImages(p, queries, features, cfg, { texts: with_texts, checkpoint }),
          ),
        ),
      );
    const { grads } = valueAndGrads(loss, [...leaves.values()]);
    expect([...leaves.keys()].sort()).toEqual(namesUnder(golden, 'grads.').sort());
    [...leaves.keys()].forEach((leaf, i) =>
      expectClose(grads[i], get(golden, `grads.${leaf}`), 1e-4, { floor: 0.1 }),
    );
  });
});

describe('the weights of a Q-Former that reads texts', () => {
  it('are those of the checkpoint', async () => {
    const golden = await read();
    const names = qformerWeights(config(golden)).map(([name]) => name);
    expect(names.sort()).toEqual(namesUnder(golden, 'weights.').sort());
  });

  it('are needed to read one', async () => {
    const golden = await read();
    const { texts } = inputs(golden);
    const cfg = { ...config(golden), use_qformer_text_input: false };
    expect(() => readTexts(weightTree<QFormerModel>(golden), texts, cfg)).toThrow(
      'use_qformer_text_input: expected true to read texts, found false',
    );
  });
});
