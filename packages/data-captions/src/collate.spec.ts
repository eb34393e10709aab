import { beforeAll, describe, expect, it } from 'vitest';
import { ids, modelFolder, TEXT_IDS, vocab } from '../spec/model-folder';
import { collate, encodePair, IGNORED, promptBatch, questionPrompt, textPair } from './collate';
import type { Example } from './example';
import { DataError } from './errors';
import type { Processor } from './processor';
import { loadProcessor } from './load-processor';

let processor: Processor;
beforeAll(async () => {
  processor = await loadProcessor(await modelFolder(), TEXT_IDS);
});

const pair = (prompt: string, target: string, source = 'f:1') => ({ prompt, target, source });
const { pad: P, bos: B, image: I, eos: E } = ids;
const [cat, aCat, dog, aDog, red] = ['cat', 'Ġcat', 'dog', 'Ġdog', 'Ġred'].map((piece) => vocab[piece]);

describe('collate', () => {
  it('makes rows of images, bos, prompt, target, eos, pads, with labels on target and eos only', () => {
    const made = collate([pair('', 'cat'), pair('cat', 'red dog')], processor);
    const _ = IGNORED;
    expect(made.shape).toEqual([2, 8]);
    expect(Array.from(made.input_ids)).toEqual([
      I,
      I,
      I,
      B,
      cat,
      E,
      P,
      P,
      /**/ I,
      I,
      I,
      B,
      cat,
      red,
      aDog,
      E,
    ]);
    expect(Array.from(made.attention_mask)).toEqual([1, 1, 1, 1, 1, 1, 0, 0, /**/ 1, 1, 1, 1, 1, 1, 1, 1]);
    expect(Array.from(made.labels)).toEqual([_, _, _, _, cat, E, _, _, /**/ _, _, _, _, _, red, aDog, E]);
  });

  it('for a seq2seq model, ends prompts with eos and puts targets in separate rows', () => {
    const seq2seq: Processor = { ...processor, rows: 'seq2seq', bos: undefined };
    const made = collate([pair('', 'cat'), pair('cat', 'red dog')], seq2seq);
    expect(made.shape).toEqual([2, 5]);
    expect(Array.from(made.input_ids)).toEqual([I, I, I, E, P, /**/ I, I, I, cat, E]);
    expect(Array.from(made.attention_mask)).toEqual([1, 1, 1, 1, 0, /**/ 1, 1, 1, 1, 1]);
    expect(Array.from(made.labels)).toEqual([cat, E, IGNORED, /**/ red, aDog, E]);
    const asked = promptBatch(seq2seq, ['', 'cat']);
    expect(asked.input_ids).toEqual(made.input_ids);
    expect(asked.attention_mask).toEqual(made.attention_mask);
  });

  it('makes the ids of the whole text, with the space in the prompt or in the target', () => {
    for (const prompt of ['cat', 'cat ', 'cat   ']) {
      expect(encodePair({ prompt, target: ' dog' }, processor)).toEqual({ prompt: [cat], target: [aDog] });
    }
    expect(encodePair({ prompt: 'cat\n', target: 'dog' }, processor)).toEqual({
      prompt: [cat, E],
      target: [dog],
    });
    expect(encodePair({ prompt: ' ', target: 'dog' }, processor)).toEqual({ prompt: [], target: [dog] });
  });

  it('keeps the newline, which is the end token, out of targets', () => {
    const { input_ids } = collate([pair('', ' cat\n\tdog\r\n')], processor);
    expect(Array.from(input_ids)).toEqual([I, I, I, B, cat, aDog, E]);
  });

  it('refuses texts that contain special tokens, all in one error', () => {
    const bad = [
      pair('', 'a <image> dog', 'f:3'),
      pair('<pad>', 'dog', 'f:5'),
      pair('', 'x</s>', 'f:7'),
      pair('', 'fine', 'f:9'),
    ];
    const error = (() => {
      try {
        return collate(bad, processor);
      } catch (e) {
        return e as DataError;
      }
    })() as DataError;
    expect(error).toBeInstanceOf(DataError);
    expect(error.problems.map((p) => p.source)).toEqual(['f:3', 'f:5', 'f:7']);
  });

  it('refuses each special token of the tokenizer, in targets, questions and prompts, and names it', () => {
    for (const token of ['<pad>', '</s>', '<unk>', '<image>']) {
      const text = `${'a dog and '.repeat(8)}${token} a cat`;
      const message = new RegExp(
        `expected a (text|prompt) without special tokens, found "${token}" in "a dog`,
      );
      expect(() => collate([pair('', text)], processor)).toThrow(message);
      expect(() => collate([pair(text, 'dog')], processor)).toThrow(message);
      expect(() => promptBatch(processor, [text])).toThrow(message);
    }
  });

  it('learns words that look like special tokens, and words that a T5 tokenizer does not know', async () => {
    const pieces = ['<pad>', '</s>', '<unk>', '▁', 'd', '▁d', '<red>'];
    const json = {
      added_tokens: [
        { id: 0, content: '<pad>', special: true },
        { id: 1, content: '</s>', special: true },
        { id: 2, content: '<unk>', special: true },
        { id: 6, content: '<red>', special: false },
      ],
      normalizer: null,
      post_processor: null,
      pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
      decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
      model: { type: 'Unigram', unk_id: 2, vocab: pieces.map((piece, i) => [piece, -i]) },
    };
    const text = { bos: undefined, eos: 1, pad: 0, imageToken: 9 };
    const words = await loadProcessor(await modelFolder({ 'tokenizer.json': json }), {
      ...TEXT_IDS,
      ...text,
    });
    const learned = (target: string) => Array.from(collate([pair('', target)], words).labels).slice(3);
    expect(learned('<red> d')).toEqual([6, 5, 1]);
    expect(learned('🐶')).toEqual([3, 2, 1]);
    expect(() => learned('<unk> d')).toThrow(/found "<unk>" in "<unk> d"/);
  });

  it('reports a text that is too long, or cuts it and keeps the end token', () => {
    const long = [pair('cat', 'dog dog dog dog')];
    expect(() => collate(long, processor, { max_text_length: 5 })).toThrow(
      /f:1: expected at most 5 tokens.*found 7 tokens/,
    );
    const cut = collate(long, processor, { max_text_length: 5, truncate: true });
    expect(Array.from(cut.input_ids)).toEqual([I, I, I, B, cat, aDog, aDog, E]);
    expect(collate(long, processor, { max_text_length: 7 }).shape).toEqual([1, 10]);
    expect(() =>
      collate([pair('cat cat cat', 'dog')], processor, { max_text_length: 5, truncate: true }),
    ).toThrow(/a prompt of 4 tokens/);
  });

  it('needs an image token', () => {
    expect(() => collate([pair('', 'cat')], { ...processor, imageToken: undefined })).toThrow(
      /set image_token_index/,
    );
  });
});

describe('promptBatch', () => {
  it('puts pads between images and text', () => {
    const made = promptBatch(processor, ['', 'cat dog ']);
    expect(made.shape).toEqual([2, 6]);
    expect(Array.from(made.input_ids)).toEqual([I, I, I, P, P, B, /**/ I, I, I, B, cat, aDog]);
    expect(Array.from(made.attention_mask)).toEqual([1, 1, 1, 0, 0, 1, /**/ 1, 1, 1, 1, 1, 1]);
  });

  it('begins like the training row of the same prompt', () => {
    for (const prompt of ['', 'cat', 'cat ', 'Question: cat? Answer:', 'cat\n']) {
      const asked = Array.from(promptBatch(processor, [prompt]).input_ids);
      const trained = Array.from(collate([pair(prompt, 'dog')], processor).input_ids);
      expect(trained.slice(0, asked.length)).toEqual(asked);
    }
  });

  it('refuses special tokens', () => {
    expect(() => promptBatch(processor, ['<image>'])).toThrow(DataError);
  });

  it('works without bos', () => {
    expect(Array.from(promptBatch({ ...processor, bos: undefined }, ['cat']).input_ids)).toEqual([
      I,
      I,
      I,
      cat,
    ]);
  });
});

describe('textPair', () => {
  const example: Example = {
    image: '/x',
    caption: 'c',
    question: ' what\nis $& it? ',
    answer: 'a',
    fields: {},
    source: 'f:1',
  };

  it('puts the question into the template', () => {
    expect(textPair(example, 'vqa')).toEqual({
      prompt: 'Question: what is $& it? Answer:',
      target: 'a',
      source: 'f:1',
    });
    expect(textPair(example, 'vqa', 'Q {}?').prompt).toBe('Q what is $& it??');
    expect(textPair(example, 'caption', 'a photo of').prompt).toBe('a photo of');
    expect(() => questionPrompt('x', 'no slot')).toThrow(/expected \{\}/);
  });

  it('has the answer as target', () => {
    const { input_ids, labels } = collate(
      [textPair({ ...example, question: 'cat', answer: 'cat dog' }, 'vqa')],
      processor,
    );
    const learned = Array.from(labels).filter((l) => l !== IGNORED);
    expect(learned).toEqual([aCat, aDog, E]);
    expect(Array.from(input_ids.slice(-3))).toEqual(learned);
  });

  it('names an example without the texts that the task needs', () => {
    expect(() => textPair({ ...example, caption: undefined }, 'caption')).toThrow(/f:1: expected a caption/);
    expect(() => textPair({ ...example, answer: undefined }, 'vqa')).toThrow(
      /f:1: expected a question and an answer/,
    );
  });
});
