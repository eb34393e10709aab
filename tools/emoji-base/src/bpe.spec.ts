import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { textIds } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import { describe, expect, it } from 'vitest';
import { byteAlphabet, splitWords, trainBpe } from './bpe';
import { SPECIALS, writeModelFiles } from './model-files';
import { parseEntry, wordnetLines } from './wordnet';

/** Applies the merges greedily in their order: BPE by its definition, slow. */
function encodePlainly(bpe: ReturnType<typeof trainBpe>, text: string): number[] {
  const bytes = byteAlphabet();
  return splitWords(text).flatMap((word) => {
    let symbols = [...Buffer.from(word, 'utf8')].map((byte) => bytes[byte]);
    for (const [left, right] of bpe.merges)
      for (let i = 0; i + 1 < symbols.length; i++)
        if (symbols[i] === left && symbols[i + 1] === right)
          symbols = [...symbols.slice(0, i), left + right, ...symbols.slice(i + 2)];
    return symbols.map((symbol) => bpe.vocab.get(symbol)!);
  });
}

const texts = wordnetLines(2000);
const bpe = trainBpe(texts, 600, SPECIALS);

describe('trainBpe', () => {
  it('merges the most frequent pair first, and the smaller text of equally frequent ones', () => {
    const { merges } = trainBpe(['ab ab ab', 'cd cd cd', 'ab'], 256 + 3, []);
    expect(merges).toEqual([
      ['a', 'b'],
      ['Ġ', 'ab'],
      ['c', 'd'],
    ]);
  });

  it('numbers specials, bytes, then merges', () => {
    expect(bpe.vocab.size).toBe(600);
    expect([...bpe.vocab.keys()].slice(0, 5)).toEqual([...SPECIALS]);
    expect(bpe.vocab.get('Ā')).toBe(5); // byte 0
    expect(bpe.merges.length).toBe(600 - 256 - 5);
    expect(trainBpe(texts, 600, SPECIALS)).toEqual(bpe);
  });

  it('updates its counts correctly: every merge is the best of a new count', () => {
    const small = texts.slice(0, 150);
    const { merges } = trainBpe(small, 5 + 256 + 40, SPECIALS);
    const bytes = byteAlphabet();
    let words = small
      .flatMap(splitWords)
      .map((word) => [...Buffer.from(word, 'utf8')].map((byte) => bytes[byte]));
    for (const [left, right] of merges) {
      const counts = new Map<string, number>();
      for (const word of words)
        for (let i = 0; i + 1 < word.length; i++) {
          const pair = `${word[i]} ${word[i + 1]}`;
          counts.set(pair, (counts.get(pair) ?? 0) + 1);
        }
      expect(counts.get(`${left} ${right}`)).toBe(Math.max(...counts.values()));
      words = words.map((word) => {
        const out: string[] = [];
        for (let i = 0; i < word.length; i++)
          if (word[i] === left && word[i + 1] === right) out.push(left + word[++i]);
          else out.push(word[i]);
        return out;
      });
    }
  });
});

describe('the tokenizer files', () => {
  it('are loaded by the processor and give the ids of the slow algorithm', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'emoji-base-'));
    try {
      await writeModelFiles(folder, bpe);
      const processor = await loadProcessor(folder, textIds(await loadConfig(folder)));
      for (const text of [
        ...texts.slice(0, 20),
        'woman police officer: medium skin tone',
        "it's naïve — 100 %",
      ]) {
        const ids = processor.tokenizer.encode(text);
        expect(ids).toEqual(encodePlainly(bpe, text));
        expect(processor.decode(ids).trim()).toBe(text);
      }
      expect(processor).toMatchObject({ eos: 2, pad: 1, imageToken: 4, numQueryTokens: 32 });
      const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
      expect(config.text_config).toMatchObject({ eos_token_id: 2, bos_token_id: 2, pad_token_id: 1 });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe('wordnetLines', () => {
  it('reads words and definitions, without examples and markers', () => {
    const line =
      '00001740 00 a 01 able(p) 0 005 = 05 ! 00002098 a 0101 | (usually followed by `to\') having the means; "able to swim"';
    expect(parseEntry(line)).toBe("able: (usually followed by `to') having the means");
    expect(parseEntry('  1 This software and database is being provided to you')).toBeUndefined();
  });

  it('selects lines from the whole database', () => {
    expect(texts.length).toBe(2000);
    expect(new Set(texts).size).toBeGreaterThan(1990);
    expect(wordnetLines(2000)).toEqual(texts);
  });
});
