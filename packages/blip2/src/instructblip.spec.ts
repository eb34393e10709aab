/** InstructBLIP beyond the golden cases of tools/parity: what depends on the instruction, shared pictures, files. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dispose, flatten, replaceLeaves, slice, tidy, valueAndGrads, variable } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter, mergeLora } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { asTensor, fixtures, goldenFloats, relativeError } from '../spec/golden';
import {
  adapterBase,
  forward,
  frozenDepth,
  generate,
  imagePrompt,
  initModel,
  loss,
  modelFiles,
  parseConfig,
  qformerFeatures,
  stagesOf,
} from './index';
import type { Blip2, TokenBatch } from './index';
import { loadFolder, saveModel } from './node';

const tiny = `${fixtures}tiny-instructblip`;
let model: Blip2;
let image_features: Tensor3D; // of three pictures

beforeAll(async () => {
  await useBackend('cpu');
  model = await loadFolder(tiny);
  image_features = asTensor((await goldenFloats()).get('image_features')!);
});

/** Rows of an encoder with the same words, and an instruction of the given number of words each, padded on the right. */
function rows(words: number[]): TokenBatch & { labels: Int32Array } {
  const { image_token_index: image, num_query_tokens: Q } = model.config;
  const [B, W] = [words.length, Math.max(...words) + 2];
  const row = [...Array<number>(Q).fill(image!), 7, 9, 12, 1];
  const instructions = words.map((n) => [
    ...[2, ...Array.from({ length: n }, (_, i) => 8 + n + 5 * i), 3],
    ...Array<number>(W - n - 2).fill(0),
  ]);
  return {
    shape: [B, row.length],
    input_ids: Int32Array.from(words.flatMap(() => row)),
    attention_mask: new Int32Array(B * row.length).fill(1),
    labels: Int32Array.from(words.flatMap((_, b) => [20 + b, 14, 1])),
    instructions: {
      shape: [B, W],
      input_ids: Int32Array.from(instructions.flat()),
      attention_mask: Int32Array.from(instructions.flat(), (id) => (id === 0 ? 0 : 1)),
    },
  };
}

const logitsOf = async (m: Blip2, image = image_features, tokens = rows([3, 0, 5])) =>
  (await forward(m, { image_features: image }, tokens).logits.data()) as Float32Array;
const picked = async (order: number[]) => {
  const values = await image_features.data();
  const size = values.length / 3;
  return asTensor<Tensor3D>({
    shape: [order.length, ...image_features.shape.slice(1)],
    values: Float32Array.from(order.flatMap((p) => [...values.slice(p * size, (p + 1) * size)])),
  });
};

describe('what depends on the instruction', () => {
  it('is in no stage that depends on the picture alone, and below no frozen layer', () => {
    expect(stagesOf(model.config).map(({ name }) => name)).toEqual(['image_features']);
    expect(frozenDepth(model.config, ['language_model.lm_head.weight'])).toBe(0);
  });

  it('is what the Q-Former computes: one picture with two instructions has two results', async () => {
    const one = await picked([1, 1]);
    const { instructions } = rows([3, 0]);
    const states = qformerFeatures(model, one, { instructions });
    const [a, b] = [0, 1].map((i) => slice(states, [i, 0, 0], [1, -1, -1]).dataSync());
    expect(relativeError(a, b)).toBeGreaterThan(0.01);
  });

  it('cannot come from query_embeds', () => {
    const { num_query_tokens: Q, text_config } = model.config;
    const query_embeds = asTensor<Tensor3D>({
      shape: [3, Q, text_config.hidden_size],
      values: new Float32Array(3 * Q * text_config.hidden_size),
    });
    expect(() => forward(model, { query_embeds }, rows([3, 0, 5]))).toThrow(
      'query_embeds: expected pixel_values or image_features, because the queries of this model depend on the instruction',
    );
  });

  it('is needed, in one row for each row of tokens', async () => {
    const { instructions, ...bare } = rows([3, 0, 5]);
    expect(() => forward(model, { image_features }, bare)).toThrow(
      /^instructions: expected the tokens of each prompt for the Q-Former .*, found none/,
    );
    const short = { ...bare, instructions: rows([3, 0]).instructions };
    expect(() => forward(model, { image_features }, short)).toThrow(
      /^instructions: expected \[3, W\] ids and mask values, found \[2,5\]/,
    );
    const long = { ...bare, instructions: rows([3, 40, 5]).instructions };
    expect(() => forward(model, { image_features }, long)).toThrow(
      'texts: expected at most 24 tokens, found 42',
    );
    await expect(generate(model, { image_features }, imagePrompt(model.config, 3))).rejects.toThrow(
      /^instructions: expected/,
    );
    const blip2 = await loadFolder(`${fixtures}tiny-t5`);
    expect(() => forward(blip2, { image_features }, { ...bare, instructions })).toThrow(
      'instructions: expected none, because the Q-Former of this model reads no text',
    );
  });
});

describe('rows that share pictures', () => {
  it.each([
    ['and instructions', [2, 0, 2, 1], [3, 0, 3, 3], 3],
    ['with other instructions', [2, 0, 2, 1, 2], [3, 3, 0, 1, 3], 4],
    ['with one instruction', [1, 1, 0, 2], [4, 4, 4, 4], 3],
  ])('have the loss and gradients of rows with a picture each: %s', async (_, order, words, readings) => {
    const run = async (shared: boolean) => {
      const queries = variable(model.params.query_tokens);
      const own = { ...model, params: { ...model.params, query_tokens: queries } };
      const image = { image_features: shared ? image_features : await picked(order) };
      const tokens = { ...rows(words), pictures: shared ? Int32Array.from(order) : undefined };
      let read = 0;
      const tap = (name: string, { shape }: { shape: number[] }) =>
        void (name === 'qformer.hidden_states.0' && (read = shape[0]));
      const { value, grads } = valueAndGrads(() => loss(own, image, tokens, { tap }), [queries]);
      return { value: (await value.data())[0], grad: await grads[0].data(), read };
    };
    const [separate, shared] = [await run(false), await run(true)];
    expect(shared.value).toBeCloseTo(separate.value, 6);
    expect(relativeError(shared.grad, separate.grad)).toBeLessThan(1e-5);
    expect([shared.read, separate.read]).toEqual([readings, order.length]);
  });

  it('have the loss of rows with a picture each also in a causal model, whose rows share the image positions', async () => {
    const raw = JSON.parse(await readFile(`${fixtures}tiny/config.json`, 'utf8')) as Record<string, object>;
    const qformer_config = { ...raw.qformer_config, vocab_size: 72, max_position_embeddings: 24 };
    const causal = initModel(parseConfig({ ...raw, model_type: 'instructblip', qformer_config }), 5);
    const { image_token_index: image, num_query_tokens: Q } = causal.config;
    const row = [...Array<number>(Q).fill(image!), 2, 7, 9, 12];
    const order = [2, 0, 2, 1, 2];
    const tokens: TokenBatch = {
      shape: [5, row.length],
      input_ids: Int32Array.from(order.flatMap(() => row)),
      attention_mask: new Int32Array(5 * row.length).fill(1),
      labels: Int32Array.from(order.flatMap(() => row.map((id, i) => (i > Q ? id : -100)))),
      instructions: rows([3, 3, 0, 1, 3]).instructions,
    };
    const value = async (image_features: Tensor3D, pictures?: number[]) =>
      (
        await loss(
          causal,
          { image_features },
          { ...tokens, pictures: pictures && Int32Array.from(pictures) },
        ).data()
      )[0];
    const separate = await value(await picked(order));
    expect(await value(image_features, order)).toBeCloseTo(separate, 6);
    expect(frozenDepth(causal.config, ['language_model.lm_head.weight'])).toBe(0);
    dispose(causal.params);
  });

  it('generate what they generate alone', async () => {
    const pictures = Int32Array.of(2, 2, 0, 1);
    const together = await generate(model, { image_features }, { ...rows([3, 0, 5, 3]), pictures });
    for (const [b, words] of [3, 0, 5, 3].entries()) {
      const alone = { image_features: await picked([pictures[b]]) };
      expect(await generate(model, alone, rows([words]))).toEqual([together[b]]);
    }
    expect(together[0]).not.toEqual(together[1]);
  });

  it('recompute layers with the same gradients, and leave no tensors', async () => {
    const name = 'qformer.embeddings.word_embeddings.weight';
    const run = async (checkpoint: boolean) => {
      const word = variable(flatten(model.params).get(name)!);
      const own = { ...model, params: replaceLeaves(model.params, (at, t) => (at === name ? word : t)) };
      const f = () => loss(own, { image_features }, rows([3, 0, 5]), { checkpoint });
      const { grads } = tidy(() => valueAndGrads(f, [word]));
      return grads[0].data();
    };
    const plain = await run(false);
    expect(Math.max(...plain)).toBeGreaterThan(0);
    expect(relativeError(await run(true), plain)).toBeLessThan(1e-6);
  });
});

describe('files', () => {
  it('saves what was loaded, a merged adapter, and both tokenizers, also over an older save', async () => {
    const root = await mkdtemp(join(tmpdir(), 'blip2-instruct-'));
    const adapter = await loadAdapter(`${fixtures}tiny-instructblip-adapter`);
    const adapted = { ...model, params: applyAdapter(model.params, adapter, adapterBase(model.config)) };
    const merged = { ...model, params: mergeLora(adapted.params) };
    const dir = join(root, 'saved');
    for (const m of [model, merged]) {
      await saveModel(m, dir, { copyFrom: tiny });
      const loaded = await loadFolder(dir);
      expect(loaded.config.raw).toEqual(model.config.raw);
      expect([...flatten(loaded.params).keys()]).toEqual([...flatten(model.params).keys()]);
      expect(await logitsOf(loaded)).toEqual(await logitsOf(m));
      dispose(loaded.params);
    }
    expect((await readdir(join(dir, 'qformer_tokenizer'))).sort()).toEqual([
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    expect(relativeError(await logitsOf(merged), await logitsOf(adapted))).toBeLessThan(1e-5);
    await rm(root, { recursive: true });
  });

  it("writes transformers' names where the config has none", async () => {
    const raw = JSON.parse(await readFile(join(tiny, 'config.json'), 'utf8')) as Record<string, object>;
    const bare = (part: string) => ({ [part]: { ...raw[part], model_type: undefined } });
    const config = parseConfig({
      ...{ ...raw, architectures: undefined, ...bare('vision_config'), ...bare('qformer_config') },
    });
    const stripped = JSON.parse(JSON.stringify(config.raw)) as Record<string, unknown>;
    const saved = JSON.parse(
      modelFiles({ ...model, config: { ...model.config, raw: stripped } }).config,
    ) as unknown;
    expect(saved).toMatchObject({
      architectures: ['InstructBlipForConditionalGeneration'],
      model_type: 'instructblip',
      vision_config: { model_type: 'instructblip_vision_model' },
      qformer_config: { model_type: 'instructblip_qformer' },
    });
  });

  it('of a BLIP-2 model do not load as InstructBLIP: the words of the Q-Former are missing', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'blip2-instruct-'));
    await cp(`${fixtures}tiny-t5`, dir, { recursive: true });
    const raw = JSON.parse(await readFile(join(dir, 'config.json'), 'utf8')) as object;
    await writeFile(join(dir, 'config.json'), JSON.stringify({ ...raw, model_type: 'instructblip' }));
    await expect(loadFolder(dir)).rejects.toThrow('qformer.embeddings.word_embeddings.weight');
    await rm(dir, { recursive: true });
  });
});
