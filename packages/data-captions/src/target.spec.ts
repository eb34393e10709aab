import { describe, expect, it } from 'vitest';
import { textPair } from './collate';
import type { Example } from './example';
import { randomWord } from './random';
import { answerOf, captionOf } from './target';

const example = (more: Partial<Example>): Example => ({ image: 'x.png', fields: {}, source: 'f:1', ...more });
const draws = Array.from({ length: 4000 }, (_, i) => randomWord(1, 2, i) / 2 ** 32);
const share = (texts: (string | undefined)[], text: string) =>
  texts.filter((one) => one === text).length / texts.length;

describe('the text to learn in one epoch', () => {
  it('is each answer as often as annotators gave it', () => {
    const answers = [...Array<string>(6).fill('red'), 'pink', 'pink', 'rose', 'Unanswerable'];
    const asked = example({ question: 'q', answer: 'red', answers });
    const drawn = draws.map((draw) => answerOf(asked, draw));
    expect(share(drawn, 'red')).toBeCloseTo(6 / 9, 1);
    expect(share(drawn, 'pink')).toBeCloseTo(2 / 9, 1);
    expect(drawn).not.toContain('Unanswerable');
    expect(answerOf(asked)).toBe('red');
    expect(textPair(asked, 'vqa', undefined, 0.99).target).toBe('rose');
  });

  it('is always "unanswerable" if that is the commonest answer', () => {
    const asked = example({
      question: 'q',
      answer: 'unanswerable',
      answers: ['unanswerable', 'unanswerable', 'red'],
    });
    expect(
      share(
        draws.map((draw) => answerOf(asked, draw)),
        'unanswerable',
      ),
    ).toBe(1);
  });

  it('is each caption equally often, and the first one without a draw', () => {
    const several = example({ caption: 'a', captions: ['a', 'b', 'c'] });
    const drawn = draws.map((draw) => captionOf(several, draw));
    for (const text of ['a', 'b', 'c']) expect(share(drawn, text)).toBeCloseTo(1 / 3, 1);
    expect(captionOf(several)).toBe('a');
    expect(textPair(several, 'caption').target).toBe('a');
  });
});
