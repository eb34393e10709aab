/** Drafts from other texts: what they are, and that a text with them is the one without, in fewer passes. */
import { dispose, memory } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { asTensor, fixtures, goldenFloats } from '../spec/golden';
import { draftsOf, generate, imagePrompt, streamTokens, TextBatch } from './index';
import type { Blip2, GenerateOptions } from './index';
import { languageModel } from './language-model';
import { loadFolder } from './node';

describe('draftsOf', () => {
  const END = 2;
  const draft = draftsOf(
    [
      [5, 6, 7],
      [5, 6, 8, 9],
      [5, 6, 8],
      [4, 6, 3],
    ],
    END,
  );

  it('continues the longest end that is in the texts, with its commonest next token, up to the end', () => {
    expect(draft([])).toEqual([5, 6, 8]); // the beginning; of equals, the first
    expect(draft([4])).toEqual([6, 3, END]);
    expect(draft([5, 6, 7])).toEqual([END]);
    expect(draft([70, 6])).toEqual([8, 9, END]); // not 3: the longest known end is [6]
    expect(draft([6, 70])).toEqual([]);
  });
});

const backends = (await availableBackends()).filter((name) => ['native', 'cpu', 'wasm'].includes(name));
const bfloat16 = backends.includes('native')
  ? await useBackend('native', { precision: 'bfloat16' }).catch(() => undefined)
  : undefined;
const precisions = (['bfloat16', 'int8', 'int4'] as const).filter(
  (name) => name !== 'bfloat16' || bfloat16 !== undefined,
);
const cases = [
  ...backends.map((backend) => ({ backend, precision: 'float32' as const, name: 'tiny' })),
  { backend: 'cpu' as const, precision: 'float32' as const, name: 'tiny-t5' },
  ...(backends.includes('native')
    ? precisions.map((precision) => ({
        backend: 'native' as const,
        precision,
        name: 'tiny',
      }))
    : []),
];

describe.each(cases)('$name on $backend in $precision', ({ backend, precision, name }) => {
  let model: Blip2;
  let one: { query_embeds: Tensor3D };
  let other: { query_embeds: Tensor3D };
  beforeAll(async () => {
    await useBackend(backend, { precision });
    const bits = precision === 'int8' ? 8 : precision === 'int4' ? 4 : undefined;
    model = await loadFolder(`${fixtures}${name}`, bits && { int8: { text_bits: bits } });
    const { num_query_tokens: Q, text_config } = model.config;
    const all = asTensor<Tensor3D>((await goldenFloats()).get('pixel_values')!, 2);
    const values = (await all.data()) as Float32Array;
    all.dispose();
    const make = (i: number) => ({
      query_embeds: asTensor<Tensor3D>({
        shape: [1, Q, text_config.hidden_size],
        values: values.slice(i * 1000, i * 1000 + Q * text_config.hidden_size),
      }),
    });
    [one, other] = [make(0), make(1)];
  });
  afterAll(() => {
    if (model) dispose([model.params, one, other]);
  });

  const prompt = () => imagePrompt(model.config, 1);
  const options: GenerateOptions[] = [
    { max_new_tokens: 14, min_new_tokens: 14 },
    { max_new_tokens: 12 },
    { max_new_tokens: 14, min_new_tokens: 9, repetition_penalty: 1.6 },
    { max_new_tokens: 14, no_repeat_ngram_size: 2 },
  ];

  it('finds the same texts with right, wrong and half right drafts, in fewer passes with right ones', async () => {
    const text = languageModel(model.config);
    for (const o of options) {
      const wanted = await generate(model, one, prompt(), o);
      const held = memory().numTensors;
      const kinds = {
        right: (fresh: readonly number[]) => wanted[0].slice(fresh.length, fresh.length + 4),
        wrong: (fresh: readonly number[]) => [wanted[0][fresh.length] === 5 ? 6 : 5, 7],
        half: (fresh: readonly number[]) => [...wanted[0].slice(fresh.length, fresh.length + 2), 7, 8],
        long: (fresh: readonly number[]) => [...wanted[0].slice(fresh.length), 5, 5, 5, 5],
      };
      for (const [kind, draft] of Object.entries(kinds)) {
        const steps = vi.spyOn(text, 'step');
        const passes = text.drafts && vi.spyOn(text.drafts, 'extend');
        expect(await generate(model, one, prompt(), { ...o, draft }), kind).toEqual(wanted);
        const count = steps.mock.calls.length + (passes?.mock.calls.length ?? 0);
        if (passes && kind === 'right')
          expect(count).toBeLessThanOrEqual(Math.ceil(wanted[0].length / 5) + 1);
        vi.restoreAllMocks();
        expect(memory().numTensors).toBe(held);
      }
    }
  });

  it('a text may join while a draft is open, and a stream may be left', async () => {
    const o = options[0];
    const [a, b] = [await generate(model, one, prompt(), o), await generate(model, other, prompt(), o)];
    const held = memory().numTensors;
    const draft = (fresh: readonly number[]) => a[0].slice(fresh.length, fresh.length + 4);
    const batch = new TextBatch(model);
    const [first] = await batch.add(one, prompt(), { ...o, draft });
    const found = new Map<number, number[]>([[first, []]]);
    for (let step = 0; batch.size > 0; step++) {
      for (const { key, id } of batch.choose()) found.get(key)!.push(id);
      await batch.run();
      if (step === 2) found.set((await batch.add(other, prompt(), { ...o, draft }))[0], []);
    }
    expect([...found.values()]).toEqual([a[0], b[0]]);
    const stream = streamTokens(model, one, prompt(), { ...o, draft });
    for (let seen = 0; seen < 3; seen++) await stream.next();
    await stream.return();
    expect(memory().numTensors).toBe(held);
  });

  it('refuses drafts with beams and sampling', async () => {
    for (const o of [{ num_beams: 2 }, { do_sample: true }])
      await expect(generate(model, one, prompt(), { ...o, draft: () => [] })).rejects.toThrow(
        'draft is for greedy search; leave out do_sample and num_beams',
      );
  });
});
