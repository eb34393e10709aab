import type { Example } from '@blip2/data-captions';
import { describe, expect, it } from 'vitest';
import type { Measured } from './evidence';
import { evidenceOf } from './evidence';

const example = (image: string, more: Partial<Example>): Example => ({
  image,
  fields: {},
  source: image,
  ...more,
});
const captioned = (captions: string[]) => captions.map((caption, i) => example(`${i}.png`, { caption }));
const of = (examples: Example[], texts: string[], more: Partial<Measured> = {}) =>
  evidenceOf({ task: 'caption', examples, texts, ...more });

describe('evidence', () => {
  it('leads with CIDEr-D for free captions and with exact match where captions are classes', () => {
    const free = ['a red mug', 'a blue mug', 'a red lamp'];
    expect(of(captioned(free), free).headline).toBe('cider_d');
    expect(of(captioned(free), free, { partsPattern: 'a (?<colour>\\w+)' }).headline).toBe('exact');
    const classes = ['cat', 'cat', 'cat', 'dog', 'dog', 'dog'];
    expect(of(captioned(classes), classes)).toMatchObject({
      headline: 'exact',
      pictures: { model: [1, 1, 1, 1, 1, 1] },
    });
  });

  it('averages the questions of a picture, and groups them by type', () => {
    const ask = (image: string, question: string, answer: string) => example(image, { question, answer });
    const examples = [
      ask('a', 'colour?', 'red'),
      ask('a', 'shape?', 'ring'),
      ask('b', 'colour?', 'blue'),
      ask('b', 'shape?', 'star'),
    ];
    const found = of(examples, ['red', 'ring', 'Blue', 'ring'], {
      task: 'vqa',
      shuffled: ['blue', 'ring', 'red', 'star'],
    });
    expect(found.headline).toBe('accuracy');
    expect(found.pictures).toEqual({ model: [1, 0.5], shuffled: [0.5, 0.5] });
    expect(found.groups).toEqual([
      { name: 'colour?', n: 2, model: 1, shuffled: 0 },
      { name: 'shape?', n: 2, model: 0.5, shuffled: 1 },
    ]);
    expect(found.confusions).toEqual([{ expected: 'star', found: 'ring', times: 1 }]);
  });

  it('counts parts that are confused, the commonest first', () => {
    const partsPattern = '^(?<who>\\w+) (?<what>\\w+)$';
    const found = of(
      captioned(['man cook', 'man judge', 'woman cook']),
      ['man judge', 'man cook', 'woman judge'],
      { partsPattern },
    );
    expect(found.groups.map(({ name, model }) => [name, model])).toEqual([
      ['who', 1],
      ['what', 0],
    ]);
    expect(found.confusions[0]).toEqual({ expected: 'cook', found: 'judge', times: 2 });
  });

  it('joins neighbouring wrong words of a caption, and leaves out captions of another length', () => {
    const found = of(captioned(['a cup at the top', 'a red cup']), ['a cup in the middle', 'cup']);
    expect(found.confusions).toEqual([{ expected: 'at the top', found: 'in the middle', times: 1 }]);
  });
});
