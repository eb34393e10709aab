import { describe, expect, it } from 'vitest';
import { chanceScore, majority, partNames, partsReader, scoreCaptions } from './score';

const PATTERN = '^(?<subject>male|female) (?<activity>.+?)(?:, Fitzpatrick type (?<tone>1-2|3|4|5|6))?$';

describe('partsReader', () => {
  const read = partsReader(PATTERN);

  it('reads every named group, and an absent one as its own value', () => {
    expect(read(' female police officer, Fitzpatrick type 4 ')).toEqual({
      subject: 'female',
      activity: 'police officer',
      tone: '4',
    });
    expect(read('male cook')).toEqual({ subject: 'male', activity: 'cook', tone: '' });
  });

  it('does not read other texts', () => {
    expect(read('a red circle')).toBeUndefined();
  });

  it('lists group names in order, lookbehinds aside', () => {
    expect(partNames(PATTERN)).toEqual(['subject', 'activity', 'tone']);
    expect(partNames('(?<=a)(?<!b)(?<c>d)')).toEqual(['c']);
    expect(partNames(undefined)).toEqual([]);
  });
});

const alone = (references: string[]) => references.map((text) => [text]);

describe('scoreCaptions', () => {
  const references = [
    'male cook',
    'female cook, Fitzpatrick type 3',
    'male judge, Fitzpatrick type 6',
    'male judge',
  ];

  it('counts whole captions and parts', () => {
    const predictions = [
      ' male cook',
      'male cook, Fitzpatrick type 3',
      'gibberish',
      'male judge, Fitzpatrick type 6',
    ];
    expect(scoreCaptions(predictions, alone(references), PATTERN)).toEqual({
      exact: 1 / 4,
      parts: { subject: 2 / 4, activity: 3 / 4, tone: 2 / 4 },
      parsed: 3 / 4,
      n: 4,
    });
  });

  it('takes the best of several references, for the text and for each part', () => {
    const several = [
      ['male judge', 'a cook'],
      ['male cook', 'female judge, Fitzpatrick type 3'],
    ];
    expect(scoreCaptions(['male judge', 'male judge, Fitzpatrick type 3'], several, PATTERN)).toEqual({
      exact: 1 / 2,
      parts: { subject: 1, activity: 1, tone: 1 },
      parsed: 1,
      n: 2,
    });
    const guesses = ['male judge', 'male judge', 'a cook', 'male cook'];
    expect(chanceScore(guesses, several).exact).toBeCloseTo((3 / 4 + 1 / 4) / 2);
  });

  it('gives no credit for parts that the prediction cannot be read for, not even absent ones', () => {
    expect(scoreCaptions(['cook'], [['male cook']], PATTERN).parts).toEqual({
      subject: 0,
      activity: 0,
      tone: 0,
    });
  });

  it('needs one prediction per example', () => {
    expect(() => scoreCaptions(['a'], [['a'], ['b']])).toThrow(
      'expected 2 predictions, one per example, found 1',
    );
  });
});

describe('chanceScore', () => {
  it('is the expected score of a random training caption', () => {
    const training = ['male cook', 'male cook', 'female judge', 'female cook'];
    const score = chanceScore(training, [['male cook'], ['male judge']], PATTERN);
    expect(score.exact).toBeCloseTo((2 / 4 + 0) / 2);
    expect(score.parts.subject).toBeCloseTo(2 / 4);
    expect(score.parts.activity).toBeCloseTo((3 / 4 + 1 / 4) / 2);
    expect(score.parts.tone).toBe(1);
  });
});

describe('majority', () => {
  it('is the most frequent text, the first of equals', () => {
    expect(majority(['b', 'a', 'a', 'b', 'c'])).toBe('b');
    expect(majority(['c', 'a', 'a'])).toBe('a');
  });
});
