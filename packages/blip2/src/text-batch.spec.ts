/** Texts that join and leave a batch between tokens are those that they would be alone. */
import { concat, memory, slice } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { availableBackends, useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { asTensor, fixtures, goldenFloats } from '../spec/golden';
import { generate, imagePrompt, TextBatch } from './index';
import type { BatchToken, Blip2, GenerateOptions, TokenBatch } from './index';
import { loadFolder } from './node';

interface Request {
  picture: number;
  /** text tokens of the prompt */
  words: number;
  options: GenerateOptions;
  /** the step before which it joins */
  at: number;
}

const REQUESTS: Request[] = [
  { picture: 0, words: 0, options: { max_new_tokens: 9, min_new_tokens: 9 }, at: 0 },
  { picture: 1, words: 5, options: { max_new_tokens: 4 }, at: 0 },
  {
    picture: 2,
    words: 2,
    options: { max_new_tokens: 12, min_new_tokens: 6, repetition_penalty: 1.4 },
    at: 2,
  },
  { picture: 1, words: 0, options: { do_sample: true, temperature: 1.3, seed: 7, max_new_tokens: 8 }, at: 2 },
  { picture: 2, words: 7, options: { max_new_tokens: 10, no_repeat_ngram_size: 2 }, at: 5 },
  { picture: 0, words: 1, options: { max_new_tokens: 6, min_new_tokens: 6 }, at: 14 }, // after some have left
];

interface Found {
  ids: number[];
  logProbabilities: number[];
}

const precisions = async () => {
  const backends = await availableBackends();
  const cases = backends.flatMap((backend) =>
    ['tiny', 'tiny-t5'].map((name) => ({ backend, name, precision: 'float32' as const })),
  );
  if (!backends.includes('native')) return cases;
  const bfloat16 = await useBackend('native', { precision: 'bfloat16' }).catch(() => undefined);
  return [
    ...cases,
    ...(bfloat16
      ? ['tiny', 'tiny-t5'].map((name) => ({
          backend: 'native' as const,
          name,
          precision: 'bfloat16' as const,
        }))
      : []),
  ];
};

describe.each(await precisions())('$name on $backend in $precision', ({ backend, name, precision }) => {
  let model: Blip2;
  let pictures: { query_embeds: Tensor3D }[];
  beforeAll(async () => {
    await useBackend(backend, { precision });
    model = await loadFolder(`${fixtures}${name}`);
    const all: Tensor3D = asTensor((await goldenFloats()).get('query_embeds')!);
    const [P, Q, D] = all.shape;
    pictures = Array.from({ length: P }, (_, i) => ({ query_embeds: slice(all, [i, 0, 0], [1, Q, D]) }));
  });

  const pictureOf = ({ picture }: Request) => pictures[picture];
  /** The image and some words; the prompt of a `seq2seq` model ends with its end token, another begins with the start token. */
  const promptOf = ({ words }: Pick<Request, 'words'>): TokenBatch => {
    const plain = imagePrompt(model.config, 1);
    const more = Array.from({ length: words }, (_, i) => 5 + ((3 * i + words) % 20));
    const row = [...plain.input_ids];
    if (name === 'tiny-t5') row.splice(-1, 0, ...more);
    else row.push(...more);
    return {
      input_ids: Int32Array.from(row),
      attention_mask: new Int32Array(row.length).fill(1),
      shape: [1, row.length],
    };
  };
  const add = (batch: TextBatch, request: Request) =>
    batch.add(pictureOf(request), promptOf(request), request.options);

  /** Runs requests together; each joins before its step. `onStep` may remove some. */
  async function run(requests: Request[], onStep?: (batch: TextBatch, step: number, keys: number[]) => void) {
    const batch = new TextBatch(model);
    const found = new Map<number, BatchToken[]>();
    const keys: number[] = [];
    const waiting = [...requests];
    for (let step = 0; waiting.length > 0 || batch.size > 0; step++) {
      while (waiting[0]?.at <= step) {
        const [key] = await add(batch, waiting.shift()!);
        keys.push(key);
        found.set(key, []);
      }
      for (const token of batch.choose()) found.get(token.key)!.push(token);
      onStep?.(batch, step, keys);
      await batch.run();
    }
    batch.dispose();
    return keys.map((key): Found => {
      const tokens = found.get(key)!;
      return { ids: tokens.map(({ id }) => id), logProbabilities: tokens.map((t) => t.logProbability) };
    });
  }

  const alone = async (request: Request) => (await run([{ ...request, at: 0 }]))[0];

  it('a text is the one that it would be alone, with the same probabilities, and all memory is free at the end', async () => {
    const before = memory().numTensors;
    const together = await run(REQUESTS);
    for (const [i, request] of REQUESTS.entries()) {
      const expected = await alone(request);
      expect(together[i].ids, `request ${i}`).toEqual(expected.ids);
      if (precision === 'bfloat16') expect(together[i]).toEqual(expected); // to the last bit
      together[i].logProbabilities.forEach((x, t) => expect(x).toBeCloseTo(expected.logProbabilities[t], 4));
    }
    expect(memory().numTensors).toBe(before);
  });

  it('equals generate, also with prompts of one batch that are padded', async () => {
    const [ids] = await generate(model, pictureOf(REQUESTS[2]), promptOf(REQUESTS[2]), REQUESTS[2].options);
    const [, , found] = await run(REQUESTS);
    expect(found.ids.filter((id) => id !== model.config.text_config.eos_token_id)).toEqual(ids);
  });

  it('a text that is removed frees its place, and the others stay as they are', async () => {
    let most = 0;
    const found = await run(REQUESTS, (batch, step, keys) => {
      if (step === 3) batch.remove([keys[0], keys[2]]);
      most = Math.max(most, batch.size);
    });
    expect(most).toBeLessThan(REQUESTS.length);
    for (const i of [1, 3, 4, 5]) expect(found[i].ids).toEqual((await alone(REQUESTS[i])).ids);
    expect(found[0].ids).toHaveLength(4);
  });

  it('frees the memory of texts that have left while others go on', async () => {
    const long: Request = { ...REQUESTS[0], options: { max_new_tokens: 40, min_new_tokens: 40 } };
    const short = (at: number): Request => ({
      ...REQUESTS[5],
      at,
      options: { max_new_tokens: 2, min_new_tokens: 2 },
    });
    const others = Array.from({ length: 12 }, (_, i) => short(3 * i));
    let [alone, together] = [0, 0]; // at the last step
    await run([long], () => void (alone = memory().numTensors));
    await run([long, ...others], () => void (together = memory().numTensors));
    expect(together).toBeLessThanOrEqual(alone); // less where pages are merged at other steps
  });

  it('gives the probabilities of given texts', async () => {
    const expected = await alone(REQUESTS[0]);
    const batch = new TextBatch(model);
    const other = [7, 11, 5];
    const keys = await batch.addGiven(pictureOf(REQUESTS[0]), promptOf(REQUESTS[0]), [expected.ids, other]);
    const found = keys.map((): BatchToken[] => []);
    for (; batch.size > 0; await batch.run())
      for (const token of batch.choose()) found[keys.indexOf(token.key)].push(token);
    expect(found.map((tokens) => tokens.map(({ id }) => id))).toEqual([expected.ids, other]);
    found[0].forEach(({ logProbability }, t) =>
      expect(logProbability).toBeCloseTo(expected.logProbabilities[t], 4),
    );
  });

  it('reads several prompts at once, each with its own options', async () => {
    const batch = new TextBatch(model);
    const pair = [REQUESTS[0], REQUESTS[3]];
    const shared = imagePrompt(model.config, 2);
    const both = concat(
      pair.map((one) => pictureOf(one).query_embeds),
      0,
    );
    const keys = await batch.add(
      { query_embeds: both },
      shared,
      pair.map(({ options }) => options),
    );
    const found = keys.map((): number[] => []);
    for (; batch.size > 0; await batch.run())
      for (const { key, id } of batch.choose()) found[keys.indexOf(key)].push(id);
    for (const [i, request] of pair.entries()) expect(found[i]).toEqual((await alone(request)).ids);
    await expect(batch.add({ query_embeds: both }, shared, [{}])).rejects.toThrow('options for each prompt');
    both.dispose();
  });

  it('a request that is refused leaves the others as they are', async () => {
    const batch = new TextBatch(model);
    await add(batch, REQUESTS[0]);
    await expect(add(batch, { ...REQUESTS[1], options: { max_new_tokens: 0 } })).rejects.toThrow(
      'max_new_tokens',
    );
    await expect(add(batch, { ...REQUESTS[1], options: { num_beams: 2 } })).rejects.toThrow('cannot stream');
    const ids: number[] = [];
    for (; batch.size > 0; await batch.run()) ids.push(...batch.choose().map(({ id }) => id));
    expect(ids).toEqual((await alone(REQUESTS[0])).ids);
  });
});
