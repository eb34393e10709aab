import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { byteAlphabet, modelFolder, temporaryFolder, vocab } from '../spec/model-folder';
import { golden, optFolder } from '../spec/opt-vocabulary';
import { encodePair } from './collate';
import { DataError } from './errors';
import { loadTokenizer } from './tokenizer-files';

interface SpecialCase {
  files: Record<string, object>;
  /** ids of each text */
  ids: Record<string, number[]>;
  /** ids, and their text without special tokens */
  all: number[];
  without_special: string;
}
/** Made by tools/parity/make_special_tokens_fixture.py. */
const special = JSON.parse(
  await readFile(new URL('../fixtures/special-tokens.json', import.meta.url), 'utf8'),
) as Record<string, SpecialCase>;

describe('the vocabulary of OPT', () => {
  const texts = Object.entries(golden.token_ids);
  let opt: string;
  beforeAll(async () => void (opt = await optFolder()));

  it('has published ids for whole texts', () => {
    const known = new Set(Object.values(golden.published));
    expect(texts.filter(([, ids]) => ids.every((id) => known.has(id))).length).toBeGreaterThanOrEqual(3);
  });

  it.each(texts)('%j', async (text, ids) => {
    const tokenizer = await loadTokenizer(opt, 50265);
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.decode([2, ...ids, 1, 50265, 50300], true)).toBe(text);
  });

  it('takes the id of <image> from config.json', async () => {
    const tokenizer = await loadTokenizer(opt, 50265);
    expect(tokenizer.tokenId('<image>')).toBe(50265);
    expect(tokenizer.encode('<image></s>')).toEqual([50265, 2]);
    expect(tokenizer.decode([50265, 102], false)).toBe('<image>a');
  });

  it('gives a separate prompt and target the ids of the whole text', async () => {
    const tokenizer = await loadTokenizer(opt);
    const word = fc.constantFrom(
      'a',
      'photo',
      'of',
      'Question:',
      'it',
      "it's",
      '3',
      '12',
      'café',
      '犬',
      '🐶',
      'dog,',
      '?',
      'red-hot',
      '(',
      'ß',
    );
    const words = fc.array(word, { minLength: 1, maxLength: 5 }).map((all) => all.join(' '));
    fc.assert(
      fc.property(words, words, fc.constantFrom('', ' ', '  ', '\n'), (prompt, target, end) => {
        const pair = encodePair({ prompt: prompt + end, target }, { tokenizer });
        const whole = prompt + (end === '\n' ? '\n' : ' ') + target;
        expect([...pair.prompt, ...pair.target]).toEqual(tokenizer.encode(whole));
      }),
    );
  });
});

describe("the special tokens of transformers' GPT2Tokenizer", () => {
  const pieces = ['<s>', '<pad>', '</s>', '<unk>', ...byteAlphabet(), '<mask>', '<image>'];
  it.each(Object.entries(special))('%s', async (_, { files, ids, all, without_special }) => {
    const dir = await temporaryFolder();
    const vocab = Object.fromEntries(pieces.map((piece, id) => [piece, id]));
    for (const [name, content] of Object.entries({ 'vocab.json': vocab, ...files }))
      await writeFile(join(dir, name), JSON.stringify(content));
    await writeFile(join(dir, 'merges.txt'), '#version: 0.2\n');
    const tokenizer = await loadTokenizer(dir);
    expect(Object.fromEntries(Object.keys(ids).map((text) => [text, tokenizer.encode(text)]))).toEqual(ids);
    expect(tokenizer.decode(all, true)).toBe(without_special);
  });
});

describe('loadTokenizer', () => {
  it('builds GPT-2 byte-level BPE from vocab.json and merges.txt', async () => {
    const tokenizer = await loadTokenizer(await modelFolder());
    const pieces = ['do', 'g', ' cat', ' ', 'ca'];
    expect(tokenizer.encode('do')).toEqual([vocab.do]);
    expect(tokenizer.encode('dog cat a')).toEqual([vocab.dog, vocab['Ġcat'], vocab['Ġa']]);
    expect(tokenizer.encode('')).toEqual([]);
    for (const text of [...pieces, 'ß 犬 🐶\n\t'])
      expect(tokenizer.decode(tokenizer.encode(text), true)).toBe(text);
    expect([...tokenizer.special.keys()].sort()).toEqual([1, 2, 3]);
  });

  it('decodes any text that it encoded, and skips ids that are not tokens', async () => {
    const tokenizer = await loadTokenizer(await modelFolder());
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        expect(tokenizer.decode(tokenizer.encode(text), false)).toBe(text);
      }),
    );
    expect(tokenizer.decode([], true)).toBe('');
    expect(tokenizer.decode([999_999, -1], true)).toBe('');
    expect(tokenizer.decode([2, vocab.dog, 1], false)).toBe('</s>dog<pad>');
  });

  it('keeps spaces before punctuation, as transformers 5 does', async () => {
    const tokenizer = await loadTokenizer(await modelFolder());
    expect(tokenizer.decode(tokenizer.encode('a dog .'), true)).toBe('a dog .');
    const cleaning = await loadTokenizer(
      await modelFolder({ 'tokenizer_config.json': { clean_up_tokenization_spaces: true } }),
    );
    expect(cleaning.decode(cleaning.encode('a dog .'), true)).toBe('a dog.');
  });

  it('leaves the id of <image> in config.json to <image>, and refuses what is no token', async () => {
    const last = Object.keys(vocab).length;
    const others = Object.fromEntries(Object.entries(vocab).filter(([piece]) => piece !== '<image>'));
    const bare = { 'special_tokens_map.json': undefined, 'vocab.json': { ...others, extra: 4 } };
    const tokenizer = await loadTokenizer(await modelFolder(bare), last);
    expect(tokenizer.encode('<image><|endoftext|>')).toEqual([last, last + 1]);
    const wrong = modelFolder({ 'special_tokens_map.json': { pad_token: { id: 1 } } });
    await expect(wrong.then(loadTokenizer)).rejects.toThrow(
      /pad_token: expected a token or {"content"}, found \{"id":1}/,
    );
  });

  it('splits texts by regular expressions in the file', async () => {
    const fixture = fileURLToPath(new URL('../../blip2/fixtures/tiny', import.meta.url));
    const json = JSON.parse(await readFile(join(fixture, 'tokenizer.json'), 'utf8')) as object;
    const Regex = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"; // GPT-2's
    const pretokenizers = [
      { type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ];
    const split = { ...json, pre_tokenizer: { type: 'Sequence', pretokenizers } };
    const own = await loadTokenizer(await modelFolder({ 'tokenizer.json': split }));
    const plain = await loadTokenizer(fixture);
    const text = "a red dog's \n\n cats ?";
    expect(own.encode(text)).toEqual(plain.encode(text));
    expect(own.decode(own.encode(text), true)).toBe(text);
  });

  it('names a missing or broken file', async () => {
    const fails = async (replace: Record<string, unknown>) => loadTokenizer(await modelFolder(replace));
    await expect(fails({ 'merges.txt': undefined })).rejects.toThrow(
      /merges\.txt: cannot be read.*vocab\.json needs it/,
    );
    await expect(fails({ 'merges.txt': 'a b c\n' })).rejects.toThrow(/two pieces per line, found "a b c"/);
    await expect(fails({ 'vocab.json': '{"a":' })).rejects.toThrow(/vocab\.json: expected JSON/);
    await expect(fails({ 'tokenizer.json': '[]' })).rejects.toThrow(
      /tokenizer\.json: expected a JSON object/,
    );
    await expect(fails({ 'tokenizer.json': '{}' })).rejects.toThrow(/tokenizer files cannot be used/);
    await expect(loadTokenizer(await temporaryFolder())).rejects.toThrow(DataError);
  });
});
