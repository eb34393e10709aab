import type { Example } from '@blip2/data-captions';
import { describe, expect, it } from 'vitest';
import { figuresOf, figureTables, namedFigures } from './figures';

const example = (more: Partial<Example>): Example => ({ image: 'x', fields: {}, source: 'f:1', ...more });

const asked = [
  example({ question: 'what colour?', answer: 'red', fields: { question_type: 'the colour' } }),
  example({ question: 'what colour?', answer: 'blue', fields: { question_type: 'the colour' } }),
  example({ question: 'how many?', answer: '2', fields: { question_type: 'number' } }),
];

const captioned = [
  example({ caption: 'a cat', captions: ['a cat', 'a black cat sits'] }),
  example({ caption: 'a dog runs' }),
];

describe('figures of answers', () => {
  const figures = figuresOf('vqa', asked, ['Red.', 'red', 'two'], {
    blank: ['red', 'red', '3'],
    shuffled: ['blue', 'red', 'two'],
  });

  it('are the VQA accuracy by question type, beside a blank image and shuffled images', () => {
    expect(figures.vqa).toMatchObject({
      rule: 'exact',
      per_question_type: { 'the colour': { accuracy: 0.5, n: 2 } },
    });
    expect(figureTables(figures).scores).toEqual([
      ['exact after normalising', 'questions', 'model', 'blank image', 'shuffled images'],
      ['the colour', '2', '50.0 %', '50.0 %', '0.0 %'],
      ['number', '1', '100.0 %', '0.0 %', '100.0 %'],
      ['all', '3', '66.7 %', '33.3 %', '33.3 %'],
    ]);
  });

  it('have flat names for metrics.jsonl', () => {
    expect(namedFigures(figures)).toEqual({
      accuracy: 2 / 3,
      accuracy_the_colour: 0.5,
      accuracy_number: 1,
      question_only_accuracy: 1 / 3,
      question_only_accuracy_the_colour: 0.5,
      question_only_accuracy_number: 0,
      shuffled_accuracy: 1 / 3,
      shuffled_accuracy_the_colour: 0,
      shuffled_accuracy_number: 1,
      repeated_ngrams: 0,
      identical_texts: 0,
      empty_texts: 0,
      changed_when_shuffled: 1 / 3,
    });
  });

  it('take few different questions for types of their own, many for none', () => {
    const bare = asked.map((one) => ({ ...one, fields: {} }));
    expect(Object.keys(figuresOf('vqa', bare, ['a', 'b', 'c']).vqa!.per_question_type)).toEqual([
      'what colour?',
      'how many?',
    ]);
    const many = Array.from({ length: 21 }, (_, i) => example({ question: `which ${i}?`, answer: 'it' }));
    const { vqa } = figuresOf(
      'vqa',
      many,
      many.map(() => 'it'),
    );
    expect(vqa).toMatchObject({ accuracy: 1, per_question_type: {} });
  });
});

describe('figures of captions', () => {
  it('count all references, and the share that changes with the picture', () => {
    const texts = ['a black cat sits', 'a dog runs'];
    const figures = figuresOf('caption', captioned, texts, {
      before: ['a fish', 'a fish'],
      shuffled: ['a black cat sits', 'a black cat sits'],
    });
    expect(figures.captions!.bleu_4).toBeGreaterThan(0.9);
    expect(figures.before!.captions!.bleu_4).toBeLessThan(0.01);
    expect(figures.degeneration.changed_when_shuffled).toBe(0.5);
    const { scores, signs } = figureTables(figures);
    expect(scores[0]).toEqual(['captions', 'model', 'before training', 'shuffled images']);
    expect(scores.find(([name]) => name === 'ROUGE-L')!.slice(0, 2)).toEqual(['ROUGE-L', '100.0']);
    expect(signs.at(-1)).toEqual(['texts that change with shuffled images', '50.0 %', '–']);
    expect(signs[2]).toEqual(['texts given to more than one picture', '0.0 %', '0.0 %']);
    expect(namedFigures(figures)).toMatchObject({ rouge_l: 1, empty_texts: 0 });
  });

  it('name repetition that the references do not have', () => {
    const { signs } = figureTables(figuresOf('caption', captioned, ['a cat', 'a cat']));
    const line = ['texts given to more than one picture', '100.0 %', '0.0 %', 'more than the references'];
    expect(signs).toContainEqual(line);
  });
});
