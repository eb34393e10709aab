import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { bleu } from './bleu';
import { scoreCaptionTexts } from './captions';
import { cider, ciderD } from './cider';
import { changedShare, degeneration } from './degeneration';
import { meteor } from './meteor';
import { stem } from './porter';
import { ptbTokenize } from './ptb';
import { rougeL } from './rouge';
import { normalizeAnswer, scoreVqa, vqaAccuracy } from './vqa';

interface CaptionRow {
  caption: string;
  references: string[];
  tokens: string;
  reference_tokens: string[];
  bleu: number[];
  rouge_l: number;
  meteor: number;
  cider: number;
  cider_d: number;
}
interface VqaRow {
  answer: string;
  answers: string[];
  question_type: string;
  answer_type: string;
  accuracy: number;
  normalized: string;
}
interface Fixture {
  captions: { rows: CaptionRow[]; corpus: Omit<CaptionRow, 'caption' | 'references' | 'tokens'> };
  lines: [string, string][];
  hostile: [string, string][];
  words: [string, string][];
  vqa: { rows: VqaRow[]; overall: number; perQuestionType: Record<string, number> };
}
const url = new URL('../fixtures/metrics.json', import.meta.url);
const golden = JSON.parse(readFileSync(url, 'utf8')) as Fixture;
const { rows, corpus } = golden.captions;
const said = rows.map((row) => row.tokens);
const wanted = rows.map((row) => row.reference_tokens);
const largest = (a: number[], b: number[]) => Math.max(...a.map((x, i) => Math.abs(x - b[i])));

describe('caption metrics equal the reference packages', () => {
  it('has 240 captions that are scored differently', () => {
    expect(rows.length).toBeGreaterThanOrEqual(200);
    expect(new Set(rows.map((row) => row.cider_d.toFixed(6))).size).toBeGreaterThan(150);
  });

  it('BLEU-1 … 4, per sentence and corpus', () => {
    const ours = bleu(said, wanted);
    expect(largest(ours.corpus, corpus.bleu)).toBeLessThan(1e-9);
    expect(
      largest(
        ours.sentences.flat(),
        rows.flatMap((row) => row.bleu),
      ),
    ).toBeLessThan(1e-9);
  });

  it.each([
    ['ROUGE-L', said.map((text, i) => rougeL(text, wanted[i])), 'rouge_l'],
    ['METEOR', said.map((text, i) => meteor(text, wanted[i])), 'meteor'],
    ['CIDEr-D', ciderD(said, wanted).images, 'cider_d'],
    ['CIDEr', cider(said, wanted).images, 'cider'],
  ] as const)('%s', (_, ours, key) => {
    expect(
      largest(
        [...ours],
        rows.map((row) => row[key]),
      ),
    ).toBeLessThan(1e-9);
  });

  it('scoreCaptionTexts: from the raw texts to the corpus figures', () => {
    const ours = scoreCaptionTexts(
      rows.map((row) => row.caption),
      rows.map((row) => row.references),
    );
    const theirs = [...corpus.bleu, corpus.rouge_l, corpus.meteor, corpus.cider, corpus.cider_d];
    expect(largest(Object.values(ours), theirs.concat(rows.length))).toBeLessThan(1e-6);
  });

  it('synonyms count where they are given', () => {
    const synonyms = (word: string) => (word === 'dog' ? ['hound'] : []);
    expect(meteor('a dog', ['a hound'], { synonyms })).toBeGreaterThan(meteor('a dog', ['a hound']));
  });

  it('refuses lists that do not fit together', () => {
    expect(() => scoreCaptionTexts(['a'], [])).toThrow(/as many lists of references as captions/);
    expect(() => scoreCaptionTexts(['a'], [[]])).toThrow(/caption 0 has no reference/);
  });
});

describe('PTB tokens', () => {
  it('equal the Java program on ordinary and odd captions', () => {
    const all = [
      ...golden.lines,
      ...rows.map((row): [string, string] => [row.caption, row.tokens]),
      ...rows.flatMap((row) => row.references.map((t, i): [string, string] => [t, row.reference_tokens[i]])),
    ];
    const different = all.filter(([text, tokens]) => ptbTokenize(text).join(' ') !== tokens.trim());
    expect(different).toEqual([]);
  });

  it('equal it on nearly all captions with random signs put in', () => {
    const same = golden.hostile.filter(([text, tokens]) => ptbTokenize(text).join(' ') === tokens.trim());
    expect(same.length / golden.hostile.length).toBeGreaterThan(0.95);
  });
});

describe('stems', () => {
  it("equal nltk's", () => {
    expect(golden.words.filter(([word, theirs]) => stem(word) !== theirs)).toEqual([]);
    expect(golden.words.length).toBeGreaterThan(5000);
  });
});

describe('VQA accuracy equals VQA-eval', () => {
  const { rows: answers, overall, perQuestionType } = golden.vqa;
  it('answer by answer', () => {
    expect(answers.length).toBeGreaterThanOrEqual(200);
    const wrong = answers.filter((row) => normalizeAnswer(row.answer) !== row.normalized);
    expect(wrong).toEqual([]);
    const ours = answers.map((row) => vqaAccuracy(row.answer, row.answers));
    expect(
      largest(
        ours,
        answers.map((row) => row.accuracy),
      ),
    ).toBeLessThan(1e-9);
    expect(new Set(answers.map((row) => row.accuracy)).size).toBeGreaterThan(4);
  });

  it('overall and by type', () => {
    const ours = scoreVqa(answers, 'official');
    expect(ours.accuracy * 100).toBeCloseTo(overall, 9);
    for (const [type, accuracy] of Object.entries(perQuestionType))
      expect(ours.per_question_type[type].accuracy * 100).toBeCloseTo(accuracy, 9);
  });

  it('one answer per question: equal after normalising, instead of always 0', () => {
    const one = [{ answer: 'The dog.', answers: ['dog'], question_type: 'what' }];
    expect(vqaAccuracy('dog', ['dog'])).toBe(0);
    expect(scoreVqa(one)).toMatchObject({
      rule: 'exact',
      accuracy: 1,
      per_question_type: { what: { n: 1 } },
    });
    expect(scoreVqa([{ answer: 'cat', answers: ['dog'] }]).accuracy).toBe(0);
  });

  it('refuses rows without a reference', () => {
    expect(() => scoreVqa([])).toThrow(/found no rows/);
    expect(() => scoreVqa([{ answer: 'x', answers: [] }])).toThrow(/none in row 0/);
  });
});

describe('degeneration', () => {
  it('sees repetition, equal texts and empty ones', () => {
    const texts = ['a hat on a hat on a hat', 'a dog', 'A  dog', ''];
    const figures = degeneration(texts, 2);
    // bigrams of the first: a-hat hat-on on-a a-hat hat-on on-a a-hat: 3 distinct of 7
    expect(figures.repeated_ngrams).toBeCloseTo((1 - 3 / 7) / 4, 12);
    expect(figures.identical_texts).toBe(0.5);
    expect(figures.empty_texts).toBe(0.25);
  });

  it('counts texts that change with the picture', () => {
    expect(changedShare(['a', 'b', 'c', 'd'], ['a', 'x', 'c ', 'y'])).toBe(0.5);
    expect(() => changedShare(['a'], [])).toThrow(/one per row/);
  });
});
