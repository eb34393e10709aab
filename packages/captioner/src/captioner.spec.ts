/** Requests of a captioner: what they give, and that those computed together are as those computed alone. */
import { pathToFileURL } from 'node:url';
import { generate, loss, textIds } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { collate, loadProcessor, promptBatch, questionPrompt } from '@blip2/data-captions';
import { tensor } from '@blip2/nn';
import type { Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ADAPTER, BYTES, INSTRUCT, open, PICTURES, TINY, TINY_T5 } from '../spec/testing';
import type { Captioner, TextOptions } from './index';

const LONG: TextOptions = { max_new_tokens: 12, min_new_tokens: 12 };

/** The text by direct calls. */
async function directly(
  dir: string,
  picture: string,
  prompt: string,
  o: object,
  adapter?: string,
): Promise<string> {
  await useBackend('cpu');
  const base = await loadFolder(dir);
  const model = adapter ? { ...base, params: applyAdapter(base.params, await loadAdapter(adapter)) } : base;
  const processor = await loadProcessor(dir, textIds(model.config));
  const { height, width } = processor.imageSize;
  const pixel_values = tensor<Tensor4D>(await processor.pixels(picture), [1, 3, height, width]);
  const [ids] = await generate(model, { pixel_values }, promptBatch(processor, [prompt]), o);
  return processor.decode(ids);
}

/** Mean cross-entropy of a text, as in training. */
async function lossOf(dir: string, picture: string, question: string | undefined, target: string) {
  await useBackend('cpu');
  const model = await loadFolder(dir);
  const processor = await loadProcessor(dir, textIds(model.config));
  const prompt = question === undefined ? '' : questionPrompt(question, processor.vqa_prompt);
  const rows = collate([{ prompt, target, source: '' }], processor);
  const { height, width } = processor.imageSize;
  const pixel_values = tensor<Tensor4D>(await processor.pixels(picture), [1, 3, height, width]);
  return (await loss(model, { pixel_values }, rows).data())[0];
}

describe.each([
  ['OPT', TINY],
  ['T5', TINY_T5],
])('a captioner with %s', (_, model) => {
  let captioner: Captioner;
  beforeAll(async () => void (captioner = await open({ model })));
  afterAll(() => captioner.close());

  it('gives the text that direct calls give', async () => {
    const { text, end } = await captioner.caption(PICTURES[0], LONG);
    expect(text).toBe(await directly(model, PICTURES[0], '', LONG));
    expect(end).toBe('length');
    const question = 'what is it ?';
    const template = model === TINY ? 'Question: {} Answer:' : 'Question: {} Short answer:';
    const answer = await captioner.answer(PICTURES[1], question, LONG);
    expect(answer.text).toBe(await directly(model, PICTURES[1], template.replace('{}', question), LONG));
    const beams = await captioner.caption(PICTURES[2], { ...LONG, num_beams: 3 });
    expect(beams.text).toBe(await directly(model, PICTURES[2], '', { ...LONG, num_beams: 3 }));
    expect(beams.tokens).toHaveLength(12);
  });

  it('gives requests that are computed together what they get alone', async () => {
    const requests = Array.from({ length: 24 }, (_, i) => ({
      picture: PICTURES[i % 3],
      question: [undefined, 'what is it ?', 'a'][i % 4],
      options: [
        { max_new_tokens: 2 + (i % 9), min_new_tokens: 1 },
        { do_sample: true, seed: i, max_new_tokens: 6, temperature: 1.5 },
        { max_new_tokens: 7, repetition_penalty: 1.3 },
      ][i % 3] as TextOptions,
    }));
    const ask = ({ picture, question, options }: (typeof requests)[number]) =>
      question === undefined
        ? captioner.caption(picture, options)
        : captioner.answer(picture, question, options);
    const together = await Promise.all(requests.map(ask));
    for (const [i, request] of requests.entries()) {
      const alone = await ask(request);
      expect(together[i].tokens.map(({ id }) => id)).toEqual(alone.tokens.map(({ id }) => id));
      expect(together[i].text).toBe(alone.text);
      expect(together[i].confidence).toBeCloseTo(alone.confidence, 5);
    }
  });

  it('scores texts: the probability is that of the loss in training, and the shares sum to 1', async () => {
    const texts = ['the dog', 'a'];
    const question = 'what is it ?';
    for (const asked of [undefined, question]) {
      const scores = await captioner.score(PICTURES[0], texts, { question: asked });
      expect(scores.map(({ text }) => text)).toEqual(texts);
      expect(scores[0].probability + scores[1].probability).toBeCloseTo(1, 9);
      const [first, second] = scores.map((one) => one.log_probability);
      expect(first - second).toBeCloseTo(Math.log(scores[0].probability / scores[1].probability), 6);
      for (const { text, log_probability, tokens } of scores) {
        const expected = await lossOf(model, PICTURES[0], asked, text);
        expect(log_probability / tokens.length).toBeCloseTo(-expected, 4);
      }
    }
    await expect(captioner.score(PICTURES[0], [])).rejects.toMatchObject({ name: 'RequestError' });
  });

  it('gives the likeliest tokens at each place', async () => {
    const { tokens, text } = await captioner.caption(PICTURES[1], { ...LONG, top_tokens: 4 });
    expect((await captioner.caption(PICTURES[1], LONG)).text).toBe(text);
    for (const { top, ...token } of tokens) {
      expect(top).toHaveLength(4);
      const probabilities = top!.map(({ probability }) => probability);
      expect(probabilities).toEqual([...probabilities].sort((a, b) => b - a));
      expect(probabilities.reduce((a, b) => a + b)).toBeLessThanOrEqual(1 + 1e-6);
      const own = top!.find(({ id }) => id === token.id); // the end token may be likelier, but LONG forbids it
      if (own) expect(own.probability).toBeCloseTo(token.probability, 6);
    }
    await expect(captioner.caption(PICTURES[1], { top_tokens: 21 })).rejects.toThrow('from 0 to 20');
  });

  it('streams pieces that make up the text', async () => {
    const expected = await captioner.caption(PICTURES[1], LONG);
    const pieces: string[] = [];
    const streamed = captioner.streamCaption(PICTURES[1], LONG);
    for await (const { text } of streamed) pieces.push(text);
    expect(pieces.join('')).toBe(expected.text);
    expect(await streamed.result).toEqual(expected);
    expect(pieces.length).toBe(expected.tokens.length);
    const beams = captioner.streamCaption(PICTURES[1], { num_beams: 2 });
    await expect(beams[Symbol.asyncIterator]().next()).rejects.toThrow('beam search cannot stream');
  });
});

describe('a captioner with a Q-Former that reads instructions', () => {
  it('gives requests that are computed together what they get alone', async () => {
    await using captioner = await open({ model: INSTRUCT });
    const ask = (_: unknown, i: number) => {
      const question = ['what is it ?', 'a', 'what is it ?'][i % 3];
      return captioner.answer(PICTURES[i % 3], question, { max_new_tokens: 6 });
    };
    const together = await Promise.all(Array.from({ length: 6 }, ask));
    for (const [i, one] of together.entries()) expect(one.text).toBe((await ask(undefined, i)).text);
    expect(new Set(together.map(({ confidence }) => confidence.toFixed(6))).size).toBeGreaterThan(2);
  });
});

describe('a captioner', () => {
  let captioner: Captioner;
  beforeAll(
    async () =>
      void (captioner = await open({
        adapters: { trained: ADAPTER },
        max_bytes: 10_000,
      })),
  );
  afterAll(() => captioner.close());

  it('takes bytes, an ArrayBuffer, a path, a file: URL and a Blob, and leaves the bytes as they are', async () => {
    const { text } = await captioner.caption(BYTES[0], LONG);
    const before = Uint8Array.from(BYTES[0]);
    const around = new Uint8Array(7 + BYTES[0].length + 9);
    around.set(BYTES[0], 7);
    const { buffer } = new Uint8Array(BYTES[0]);
    const sources = [
      buffer,
      PICTURES[0],
      pathToFileURL(PICTURES[0]),
      new Blob([new Uint8Array(BYTES[0])]),
      around.subarray(7, 7 + BYTES[0].length),
    ];
    for (const source of sources) expect((await captioner.caption(source, LONG)).text).toBe(text);
    expect(Uint8Array.from(BYTES[0])).toEqual(before);
    expect(buffer.byteLength).toBe(BYTES[0].length);
  });

  it('has adapters by name on one base', async () => {
    expect(captioner.info.adapters).toEqual(['trained', 'base']);
    const options = (adapter: string) => ({ ...LONG, adapter });
    const [trained, base, again] = await Promise.all(
      ['trained', 'base', 'trained'].map((name) => captioner.caption(PICTURES[0], options(name))),
    );
    expect(trained.text).toBe(await directly(TINY, PICTURES[0], '', LONG, ADAPTER));
    expect(base.text).toBe(await directly(TINY, PICTURES[0], '', LONG));
    expect([trained.text, again.text]).toEqual([trained.text, trained.text]);
    expect(trained.tokens).not.toEqual(base.tokens);
  });

  it.each([
    ['a missing file', 'no/such.png', {}, 'ImageError', 'no/such.png: there is no such image file'],
    ['bytes that are no picture', Buffer.from('hello, world'), {}, 'ImageError', 'image'],
    ['a picture that is cut off', BYTES[0].subarray(0, 60), {}, 'ImageError', 'damaged or cut off'],
    ['too many bytes', new Uint8Array(10_001), {}, 'ImageError', '10001 bytes, more than 10000 (max_bytes)'],
    ['an address', new URL('https://example.com/a.png'), {}, 'ImageError', 'expected a file: URL'],
    ['something else', 5 as never, {}, 'ImageError', 'expected the bytes of an image file'],
    [
      'an unknown adapter',
      PICTURES[0],
      { adapter: 'x' },
      'RequestError',
      'expected one of trained, base, found "x"',
    ],
    ['an unknown option', PICTURES[0], { max_length: 3 }, 'RequestError', 'use max_new_tokens'],
    ['an option out of range', PICTURES[0], { temperature: 0 }, 'RequestError', 'temperature'],
    [
      'more tokens than the model has room for',
      PICTURES[0],
      { max_new_tokens: 900 },
      'RequestError',
      'positions',
    ],
    [
      'an option that cannot be sent to a thread',
      PICTURES[0],
      { seed: () => 1 },
      'RequestError',
      'could not be cloned',
    ],
    [
      'a very long prompt',
      PICTURES[0],
      { prompt: 'a '.repeat(50_000) },
      'RequestError',
      'at most 50000 characters',
    ],
    ['a special token in the prompt', PICTURES[0], { prompt: '<image>' }, 'RequestError', 'special tokens'],
  ])('refuses %s, and goes on', async (_, image, options, name, message) => {
    await expect(captioner.caption(image, options as TextOptions)).rejects.toMatchObject({
      name,
      message: expect.stringContaining(message) as string,
    });
    expect((await captioner.caption(PICTURES[0], LONG)).tokens).toHaveLength(12);
    expect(captioner.state()).toMatchObject({ state: 'ready', running: 0, waiting: 0, restarts: 0 });
  });

  it('refuses a picture with too many pixels', async () => {
    await using small = await open({ max_pixels: 20 });
    await expect(small.caption(BYTES[0])).rejects.toMatchObject({
      name: 'ImageError',
      message: expect.stringContaining('pixels, more than 20') as string,
    });
  });

  it.each([
    ['a folder without a model', { model: '/no/such/model' }, 'no such'],
    ['an adapter that is not there', { adapter: '/no/such/adapter' }, 'adapter "default" (/no/such/adapter)'],
    ['a name that is taken', { adapters: { base: ADAPTER } }, 'the name "base" stands for'],
    [
      'a program that is not there',
      { worker: new URL('file:///no/worker.js') },
      'if a bundler has moved the code',
    ],
  ])('does not start with %s', async (_, options, message) => {
    await expect(open(options)).rejects.toMatchObject({
      name: 'LoadError',
      message: expect.stringContaining(message) as string,
    });
  });
});
