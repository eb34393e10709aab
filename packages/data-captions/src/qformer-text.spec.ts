import { describe, expect, it } from 'vitest';
import { collate, promptBatch, promptFor } from './collate';
import type { Processor } from './processor';
import { paddedRows, qformerText } from './qformer-text';
import type { Tokenizer } from './tokenizer';

/** A token for each word: its length plus 10; special ones have ids below. */
function tokenizer(special: string[]): Tokenizer {
  const id = (word: string) => (special.includes(word) ? special.indexOf(word) : word.length + 10);
  return {
    encode: (text) => text.split(' ').filter(Boolean).map(id),
    decode: (ids) => ids.join(' '),
    tokenId: (token) => (special.includes(token) ? special.indexOf(token) : undefined),
    special: new Map(special.map((token, i) => [i, token])),
  };
}

const bert = tokenizer(['[PAD]', '[CLS]', '[SEP]', '[UNK]']);
const processor: Processor = {
  rows: 'seq2seq',
  ...{ eos: 1, pad: 0, imageToken: 9, numQueryTokens: 2, instruction_length: 5 },
  tokenizer: tokenizer(['<pad>', '</s>']),
  qformer: qformerText(bert, 5),
  imageSize: { height: 2, width: 2 },
  pixels: () => Promise.resolve(new Float32Array(12)),
  decode: (ids) => ids.join(' '),
};

describe('instructions', () => {
  it('are rows of [CLS], words and [SEP] beside the rows of the text model, in training and for generation', () => {
    const pairs = ['a dog', 'what'].map((prompt) => ({ prompt, target: 'yes', source: 'x' }));
    const expected = {
      shape: [2, 4],
      input_ids: Int32Array.of(1, 11, 13, 2, 1, 14, 2, 0),
      attention_mask: Int32Array.of(1, 1, 1, 1, 1, 1, 1, 0),
    };
    expect(collate(pairs, processor).instructions).toEqual(expected);
    expect(promptBatch(processor, ['a dog', 'what']).instructions).toEqual(expected);
    expect(promptBatch(processor, ['']).instructions).toMatchObject({ input_ids: Int32Array.of(1, 2) });
    expect(promptBatch({ ...processor, qformer: undefined }, ['a'])).not.toHaveProperty('instructions');
  });

  it.each([
    [
      'too long',
      'one two three four',
      'a prompt of at most 5 tokens of the Q-Former, found 6 in "one two three four"',
    ],
    [
      "with the tokenizer's own tokens",
      'a [SEP] b',
      'a prompt without special tokens, found [SEP] in "a [SEP] b"',
    ],
  ])('%s are refused', (_, prompt, why) => {
    expect(() => collate([{ prompt, target: 'yes', source: 'x:1' }], processor)).toThrow(
      `x:1: expected ${why}`,
    );
    expect(() => promptBatch(processor, ['a', prompt])).toThrow(`prompt: expected ${why}`);
  });

  it('have a default for captions, and the template of the text model for questions', () => {
    expect(promptFor('caption', undefined, processor)).toBe('A short image description.');
    expect(promptFor('caption', 'a photo of', processor)).toBe('a photo of');
    expect(promptFor('vqa', undefined, { ...processor, vqa_prompt: 'Q: {} A:' })).toBe('Q: {} A:');
    expect(promptFor('caption', undefined, { ...processor, instruction_length: undefined })).toBeUndefined();
  });

  it("need BERT's tokenizer", () => {
    expect(() => qformerText(tokenizer(['[PAD]', '[CLS]']), 5, 'dir')).toThrow(
      "dir: expected the token [SEP], found none; a Q-Former that reads texts has BERT's tokenizer",
    );
  });

  it('are padded to the longest', () => {
    expect(paddedRows([[5], [6, 7]], 3).input_ids).toEqual(Int32Array.of(5, 3, 6, 7));
    expect(paddedRows([], 3).shape).toEqual([0, 0]);
  });
});
