/** BLIP-2 with a T5 text model, beyond the golden cases of tools/parity: shared pictures, ties, files. */
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { dispose, flatten, valueAndGrads, variable } from '@blip2/nn';
import type { Tensor, Tensor3D, TokenBatch } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { adapterFiles, addLora, applyAdapter, mergeLora } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { readSafetensors } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { asTensor, fixtures, goldenFloats, relativeError } from '../spec/golden';
import { adapterBase, forward, generate, imagePrompt, loadModel, loss, modelFiles } from './index';
import type { Blip2 } from './index';
import { withOwnTies } from './ties';
import { loadFolder, saveModel } from './node';

const tiny = `${fixtures}tiny-t5`;
const names = ['language_model.shared.weight', 'language_model.lm_head.weight'];
let model: Blip2;
let query_embeds: Tensor3D; // of three pictures

beforeAll(async () => {
  await useBackend('cpu');
  model = await loadFolder(tiny);
  query_embeds = asTensor((await goldenFloats()).get('query_embeds')!);
});

/** Rows of an encoder: the image, `words` tokens and an end token, with three pads; targets of unequal length. */
function rows(words: number[]): TokenBatch & { labels: Int32Array } {
  const { image_token_index: image, num_query_tokens: Q } = model.config;
  const T = Q + Math.max(...words) + 4;
  const each = words.map((n) => [
    ...Array<number>(Q).fill(image!),
    ...Array.from({ length: n }, (_, i) => 5 + n + 3 * i),
    1,
    ...Array<number>(T - Q - n - 1).fill(0),
  ]);
  const labels = words.map((n, b) =>
    Array.from({ length: 5 }, (_, u) => (u < 2 + (n % 3) ? 7 + b + u : -100)),
  );
  return {
    shape: [words.length, T],
    input_ids: Int32Array.from(each.flat()),
    attention_mask: Int32Array.from(each.flat(), (id) => (id === 0 ? 0 : 1)),
    labels: Int32Array.from(labels.flat()),
  };
}

const logitsOf = async (m: Blip2) =>
  (await forward(m, { query_embeds }, rows([3, 0, 5])).logits.data()) as Float32Array;

describe('loss', () => {
  it.each([
    ['different prompts', [2, 0, 2, 1], [3, 0, 5, 1], 4],
    ['two of which have the same prompt', [2, 0, 2, 2, 1], [3, 3, 3, 1, 3], 4],
  ])(
    'of rows that share pictures is that of rows with a picture each, and the gradients are summed: %s',
    async (_, pictures, words, encoded) => {
      const order = Int32Array.from(pictures);
      const run = async (shared: boolean, checkpoint = false) => {
        const x = variable(shared ? query_embeds : asTensor<Tensor3D>(await repeated(order)));
        const tokens = { ...rows(words), pictures: shared ? order : undefined };
        let count = 0;
        const tap = (name: string, { shape }: Tensor) =>
          void (name.endsWith('encoder.hidden_states.0') && (count = shape[0]));
        const options = { checkpoint, ...(!checkpoint && { tap }) };
        const { value, grads } = valueAndGrads(() => loss(model, { query_embeds: x }, tokens, options), [x]);
        return { value: (await value.data())[0], grad: await grads[0].data(), count };
      };
      const separate = await run(false);
      const size = separate.grad.length / order.length;
      const summed = new Float32Array(3 * size);
      order.forEach((picture, b) => {
        for (let i = 0; i < size; i++) summed[picture * size + i] += separate.grad[b * size + i];
      });
      for (const checkpoint of [false, true]) {
        const shared = await run(true, checkpoint);
        expect(shared.value).toBeCloseTo(separate.value, 6);
        expect(relativeError(shared.grad, summed)).toBeLessThan(1e-5);
        if (!checkpoint) expect([separate.count, shared.count]).toEqual([order.length, encoded]);
      }
    },
  );

  it('does not depend on pads behind the rows or the targets', async () => {
    const value = async (tokens: TokenBatch) => (await loss(model, { query_embeds }, tokens).data())[0];
    const [B, T] = rows([3, 0, 5]).shape;
    const { input_ids, attention_mask, labels } = rows([3, 0, 5]);
    const wider = (values: Int32Array, from: number, to: number, pad: number) =>
      Int32Array.from({ length: B * to }, (_, i) =>
        i % to < from ? values[Math.floor(i / to) * from + (i % to)] : pad,
      );
    const longer: TokenBatch = {
      shape: [B, T + 2],
      input_ids: wider(input_ids, T, T + 2, 0),
      attention_mask: wider(attention_mask, T, T + 2, 0),
      labels: wider(labels, 5, 8, -100),
    };
    expect(await value(longer)).toBeCloseTo(await value(rows([3, 0, 5])), 5);
  });
});

async function repeated(order: Int32Array) {
  const values = await query_embeds.data();
  const size = values.length / 3;
  return {
    shape: [order.length, ...query_embeds.shape.slice(1)],
    values: Float32Array.from([...order].flatMap((p) => [...values.slice(p * size, (p + 1) * size)])),
  };
}

describe('generate', () => {
  it('counts the start token of the decoder, and not the prompt, among earlier tokens', async () => {
    const prompts = imagePrompt(model.config, 3);
    const [plain] = await generate(model, { query_embeds }, prompts, { max_new_tokens: 1, eos_token_id: 63 });
    const asked = { ...rows([1, 1, 1]), labels: undefined };
    asked.input_ids = asked.input_ids.map((id) => (id === 6 ? plain[0] : id));
    const strong = { repetition_penalty: 1000, max_new_tokens: 1, eos_token_id: 63 };
    const weak = { ...strong, repetition_penalty: 1 };
    expect(await generate(model, { query_embeds }, asked, strong)).toEqual(
      await generate(model, { query_embeds }, asked, weak),
    );
  });

  it('takes prompts that are padded on the right', async () => {
    const tokens = rows([3, 0, 5]);
    const together = await generate(model, { query_embeds }, tokens, { max_new_tokens: 6 });
    const [B, T] = tokens.shape;
    for (let b = 0; b < B; b++) {
      const length = tokens.attention_mask.slice(b * T, (b + 1) * T).reduce((sum, m) => sum + m, 0);
      const alone: TokenBatch = {
        shape: [1, length],
        input_ids: tokens.input_ids.slice(b * T, b * T + length),
        attention_mask: new Int32Array(length).fill(1),
      };
      const { values, shape } = await repeated(Int32Array.of(b));
      const image = { query_embeds: asTensor<Tensor3D>({ values, shape }) };
      expect(await generate(model, image, alone, { max_new_tokens: 6 })).toEqual([together[b]]);
    }
  });
});

describe('adapters', () => {
  const lora = (target_modules: string | string[]) => addLora(model.params, { r: 2, target_modules }, 1);

  it('are on every linear layer but the head with all-linear, and not on embeddings', () => {
    const { modules } = lora('all-linear');
    const text = modules.flatMap((module) => /^language_model\.(.*)$/.exec(module)?.[1] ?? []);
    expect(text).toHaveLength(2 * (4 + 3) + 2 * (8 + 3)); // encoder, decoder
    expect(() => lora(['q', 'shared'])).toThrow(/not an embedding\), found also:\n.*language_model\.shared/);
  });

  it('that PEFT made for the language model alone fit the whole model', async () => {
    const whole = await loadAdapter(`${fixtures}tiny-t5-adapter`);
    const short = (name: string) => name.replace(/^language_model\./, '');
    const alone = { ...whole, lora: new Map([...whole.lora].map(([name, part]) => [short(name), part])) };
    const [a, b] = [whole, alone].map((adapter) =>
      applyAdapter(model.params, adapter, adapterBase(model.config)),
    );
    expect(await logitsOf({ ...model, params: b })).toEqual(await logitsOf({ ...model, params: a }));
  });

  it("on an untied head store the head's own weight too, as PEFT does", () => {
    const { tree } = lora(['lm_head']);
    const files = adapterFiles(tree, { r: 2, target_modules: ['lm_head'] }, adapterBase(model.config).ties);
    const tensors = files.get('adapter_model.safetensors') as { name: string }[];
    expect(tensors.map(({ name }) => name.replace('base_model.model.language_model.', ''))).toEqual([
      'lm_head.lora_A.weight',
      'lm_head.lora_B.weight',
      'lm_head.base_layer.weight',
    ]);
  });
});

describe('files', () => {
  it('saves what was loaded, and a merged adapter with the logits of the adapter', async () => {
    const root = await mkdtemp(join(tmpdir(), 'blip2-t5-'));
    const adapter = await loadAdapter(`${fixtures}tiny-t5-adapter`);
    const adapted = { ...model, params: applyAdapter(model.params, adapter, adapterBase(model.config)) };
    const merged = { ...model, params: mergeLora(adapted.params) };
    for (const [name, m] of Object.entries({ model, merged })) {
      await saveModel(m, join(root, name), { copyFrom: tiny });
      const loaded = await loadFolder(join(root, name));
      expect(loaded.config.raw).toEqual(model.config.raw);
      expect([...flatten(loaded.params).keys()]).toEqual([...flatten(model.params).keys()]);
      expect(await logitsOf(loaded)).toEqual(await logitsOf(m));
      dispose(loaded.params);
    }
    expect(relativeError(await logitsOf(merged), await logitsOf(adapted))).toBeLessThan(1e-5);
    expect(relativeError(await logitsOf(adapted), await logitsOf(model))).toBeGreaterThan(0.01);
  });

  it('an adapter on the head of a tied model unties it, and the scale of the head stays', async () => {
    const tied = await withText({ tie_word_embeddings: true, scale_decoder_outputs: undefined }, (all) => {
      all.delete(names[1]);
    });
    expect(flatten(tied.params).has(names[1])).toBe(false);
    const { ties } = adapterBase(tied.config);
    const { tree } = addLora(
      tied.params,
      { r: 2, target_modules: ['lm_head'], init_lora_weights: false },
      1,
      ties,
    );
    const own = withOwnTies({ ...tied, params: mergeLora(tree) });
    const { tensors, config } = modelFiles(own);
    expect(tensors.map(({ name }) => name)).toContain(names[1]);
    expect((JSON.parse(config) as Raw).text_config).toMatchObject({
      tie_word_embeddings: false,
      scale_decoder_outputs: true,
    });
    expect(own.config.text_config).toMatchObject({ scale_decoder_outputs: true });
  });

  it('takes the tensors that transformers 4 stored, under any name of the embeddings', async () => {
    const [shared] = names;
    for (const name of ['encoder.embed_tokens', 'decoder.embed_tokens']) {
      const loaded = await withText({}, (all) => {
        all.set(`language_model.${name}.weight`, all.get(shared)!);
        all.delete(shared);
        all.set('language_model.decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight', {
          shape: [8, 3],
          values: new Float32Array(24),
        });
      });
      expect(await logitsOf(loaded)).toEqual(await logitsOf(model));
    }
  });

  it('refuses embeddings of encoder and decoder that differ', async () => {
    const differing = withText({}, (all) => {
      const { shape, values } = all.get(names[0])!;
      all.set('language_model.decoder.embed_tokens.weight', { shape, values: values.map((x) => x + 1) });
    });
    await expect(differing).rejects.toThrow(
      'language_model.decoder.embed_tokens.weight and language_model.shared.weight have different values in the checkpoint',
    );
  });
});

interface Raw {
  text_config: Record<string, unknown>;
}
type Floats = { shape: number[]; values: Float32Array };

/** The fixture with other fields of text_config and other tensors. */
async function withText(fields: object, change: (all: Map<string, Floats>) => void): Promise<Blip2> {
  const raw = JSON.parse(await readFile(join(tiny, 'config.json'), 'utf8')) as Raw;
  const reader = await openWeights(tiny);
  const all = new Map<string, Floats>();
  for (const [name, { shape }] of reader.entries)
    all.set(name, { shape, values: await reader.readFloat32(name) });
  await reader.close();
  change(all);
  const file = join(await mkdtemp(join(tmpdir(), 'blip2-t5-')), 'model.safetensors');
  await writeSafetensors(
    file,
    [...all].map(([name, { shape, values }]) => ({ name, dtype: 'F32', shape, data: values })),
  );
  const weights = await readSafetensors(await readFile(file));
  const text_config = Object.fromEntries(
    Object.entries({ ...raw.text_config, ...fields }).filter(([, value]) => value !== undefined),
  );
  return loadModel({ config: { ...raw, text_config }, weights });
}
