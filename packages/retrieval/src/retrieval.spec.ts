import { readFileSync } from 'node:fs';
import { mkdtemp, readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dispose, flatten, memory, reshape, slice, tidy, tile, zeros } from '@blip2/nn';
import type { Tensor2D, Tensor4D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { loadTokenizer } from '@blip2/data-captions';
import { expectClose, get, readGolden, toTensor } from '@blip2/golden';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  embedImages,
  embedTexts,
  imageTokens,
  isRetrievalConfig,
  matchScores,
  parseRetrievalConfig,
} from './index';
import { retrievalWeights, similarity, textRows } from './index';
import type { TextRows } from './index';
import { loadRetrievalConfig, loadRetrievalModel, saveRetrievalModel } from './node';

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));
const TINY = `${FIXTURES}tiny`;
const json = <T>(name: string) => JSON.parse(readFileSync(FIXTURES + name, 'utf8')) as T;
const { texts, input_ids, attention_mask } = json<{
  texts: string[];
  input_ids: number[][];
  attention_mask: number[][];
}>('golden.json');
const rows: TextRows = {
  input_ids: Int32Array.from(input_ids.flat()),
  attention_mask: Int32Array.from(attention_mask.flat()),
  shape: [texts.length, input_ids[0].length],
};

describe('token rows', () => {
  it('equal those of transformers', async () => {
    const made = textRows(await loadTokenizer(TINY), texts, await loadRetrievalConfig(TINY));
    expect(made).toEqual(rows);
  });

  it('are cut after the last position', async () => {
    const config = { ...(await loadRetrievalConfig(TINY)), max_position_embeddings: 5 };
    const { input_ids, shape } = textRows(await loadTokenizer(TINY), [texts[0]], config);
    expect(shape).toEqual([1, 5]);
    expect([input_ids[0], input_ids[4]]).toEqual([2, 3]);
  });
});

describe.each(await availableBackends())('retrieval on %s', (backend) => {
  beforeAll(async () => void (await useBackend(backend)));

  it('embeddings, similarities and matching equal transformers, and nothing leaks', async () => {
    const golden = await readGolden(import.meta.url, 'golden');
    const model = await loadRetrievalModel(TINY);
    const pixels = toTensor<Tensor4D>(golden, 'pixel_values');
    const before = memory().numTensors;
    const tokens = imageTokens(model, pixels);
    const images = embedImages(model, tokens);
    const words = embedTexts(model, rows);
    const scores = similarity(images, words);
    expectClose(images, get(golden, 'image_embeds'), 1e-5);
    expectClose(words, get(golden, 'text_embeds'), 1e-5);
    expectClose(scores, get(golden, 'itc'), 1e-5);

    const [B, R] = scores.shape;
    const found = Array.from({ length: B }, (_, b) =>
      tidy(() => {
        const [, N, E] = tokens.shape;
        const one = tile(slice(tokens, [b, 0, 0], [1, N, E]), [R, 1, 1]);
        return matchScores(model, one, rows);
      }),
    );
    const expected = get(golden, 'itm');
    for (const [b, x] of found.entries())
      expectClose(x, { shape: [R, 2], values: expected.values.subarray(b * R * 2, (b + 1) * R * 2) }, 1e-5);
    dispose([tokens, images, words, scores, found]);
    expect(memory().numTensors).toBe(before);
    dispose([pixels, [...flatten(model.params).values()]]);
  });
});

describe('saveRetrievalModel', () => {
  it('writes the weights and files that were read', async () => {
    await useBackend('cpu');
    const model = await loadRetrievalModel(TINY);
    const dir = join(await mkdtemp(join(tmpdir(), 'blip2-retrieval-')), 'saved');
    await saveRetrievalModel(model, dir, { copyFrom: TINY });
    expect((await readdir(dir)).sort()).toEqual((await readdir(TINY)).sort());
    const saved = await loadRetrievalModel(dir);
    expect(saved.config).toEqual(model.config);
    const read = async ({ params }: typeof model) =>
      Promise.all([...flatten(params)].map(async ([name, x]) => [name, [...(await x.data())]]));
    expect(await read(saved)).toEqual(await read(model));
    const { query_tokens, ...rest } = model.params;
    const broken = {
      ...model,
      params: { ...rest, query_tokens: slice(query_tokens, [0, 0, 0], [1, 2, 16]) },
    };
    await expect(saveRetrievalModel(broken, dir)).rejects.toThrow(
      'query_tokens: expected [1,4,16], found [1,2,16]',
    );
    dispose([[...flatten(model.params).values()], [...flatten(saved.params).values()]]);
  });
});

describe('the parts with a projection alone', () => {
  it.each(['Blip2TextModelWithProjection', 'Blip2VisionModelWithProjection'])(
    '%s: has these tensors',
    async (name) => {
      const config = parseRetrievalConfig({ ...json<object>('tiny/config.json'), architectures: [name] });
      const names = retrievalWeights(config).map(([tensor]) => tensor);
      expect(names.sort()).toEqual(
        json<string[]>(`${name}.json`).filter((tensor) => !tensor.endsWith('position_ids')),
      );
    },
  );

  it('name what they cannot do', async () => {
    await useBackend('cpu');
    const { config, params } = await loadRetrievalModel(TINY);
    const { embeddings, text_projection, ...rest } = params;
    expect([embeddings, text_projection]).not.toContain(undefined);
    const vision = {
      config: { ...config, architecture: 'Blip2VisionModelWithProjection' as const },
      params: rest,
    };
    expect(() => embedTexts(vision, rows)).toThrow(
      'Blip2VisionModelWithProjection cannot embed texts; use a Blip2ForImageTextRetrieval checkpoint',
    );
    dispose([...flatten(params).values()]);
  });
});

describe('parseRetrievalConfig', () => {
  it('knows the models', () => {
    expect(isRetrievalConfig(json('tiny/config.json'))).toBe(true);
    expect(isRetrievalConfig({ architectures: ['Blip2ForConditionalGeneration'] })).toBe(false);
    expect(isRetrievalConfig(null)).toBe(false);
  });

  it.each([
    [
      { architectures: ['Blip2ForConditionalGeneration'] },
      'config.json: architectures: expected one of Blip2ForImageTextRetrieval, ',
    ],
    [
      { qformer_config: { use_qformer_text_input: false } },
      'qformer_config.use_qformer_text_input: expected true, found false',
    ],
    [{ image_text_hidden_size: 0 }, 'image_text_hidden_size: expected a positive integer, found 0'],
  ])('refuses %j', (change, message) => {
    expect(() => parseRetrievalConfig({ ...json<object>('tiny/config.json'), ...change })).toThrow(message);
  });
});

describe('a zero vector', () => {
  it('has no direction, and gives no NaN', async () => {
    await useBackend('cpu');
    const model = await loadRetrievalModel(TINY);
    const { qformer_config, image_text_hidden_size } = model.config;
    const zero = { weight: zeros<Tensor2D>([image_text_hidden_size, qformer_config.hidden_size]) };
    const found = embedTexts({ ...model, params: { ...model.params, text_projection: zero } }, rows);
    expect([...(await reshape(found, [-1]).data())].every((value) => value === 0)).toBe(true);
    dispose([found, zero.weight, [...flatten(model.params).values()]]);
  });
});
