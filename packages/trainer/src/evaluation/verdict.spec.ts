import { describe, expect, it } from 'vitest';
import { defaultConfig } from '../config';
import { bootstrap } from './bootstrap';
import type { Evidence, Headline } from './evidence';
import { nextStep } from './next-step';
import type { VerdictInput } from './verdict';
import { verdict } from './verdict';

/** Scores of `n` pictures of which a share is right, in a fixed mixed order. */
const share = (right: number, n: number, from = 0) =>
  Array.from({ length: n }, (_, i) => Number(((i + from) * 7919) % n < Math.round(right * n)));

function input(
  pictures: Evidence['pictures'],
  more: Partial<VerdictInput> & Partial<Evidence> & { headline?: Headline } = {},
): VerdictInput {
  const { headline = 'exact', groups = [], confusions = [], ...rest } = more;
  return {
    evidence: { headline, rows: pictures.model, pictures, groups, confusions },
    steps: 300,
    loss: { first: 4, last: 0.1 },
    ...rest,
  };
}

describe('verdict', () => {
  it('learned: better than before training, and than with a blank image and with shuffled images', () => {
    const n = 101;
    const made = verdict(
      input({ model: share(0.7, n), before: share(0, n), blank: share(0, n), shuffled: share(0.1, n, 50) }),
    );
    expect(made).toMatchObject({ outcome: 'learned', pictures: n });
    expect(made.sentences[0]).toMatch(
      /^learned: exact match 0\.0 % → 70\.3 % \(95 % interval 6\d\.\d % to 7\d\.\d %, 101 held-out pictures\)$/,
    );
    expect(made.sentences[1]).toMatch(/^uses the picture: 70\.3 %, against 0\.0 % with a blank image, /);
  });

  it('did not learn: certainly not much better than before training', () => {
    const n = 307;
    const made = verdict(
      input(
        { model: share(0.003, n), before: share(0, n), blank: share(0, n) },
        { loss: { first: 7, last: 6.4 } },
      ),
    );
    expect(made.outcome).toBe('not learned');
    expect(made.sentences[0]).toContain('did not learn: exact match 0.0 % → 0.3 %');
    expect(made.sentences[0]).toContain('training loss 7.00 → 6.40 in 300 steps');
  });

  it('diverged: the loss rose, and nothing is better than before', () => {
    const n = 41;
    const pictures = { model: share(0, n), before: share(0.2, n) };
    expect(verdict(input(pictures, { loss: { first: 2, last: 9 } })).outcome).toBe('diverged');
    expect(verdict(input(pictures, { loss: { first: 2, last: NaN } })).outcome).toBe('diverged');
    expect(verdict(input(pictures)).outcome).toBe('not learned');
  });

  it('ignores the picture: as good with shuffled images', () => {
    const n = 211;
    const made = verdict(
      input({ model: share(0.6, n), before: share(0, n), blank: share(0, n), shuffled: share(0.6, n, 1) }),
    );
    expect(made.outcome).toBe('ignores the picture');
    expect(made.sentences[1]).toMatch(/^does not use the picture/);
  });

  it('is unclear with few pictures, whatever they score', () => {
    const n = 5;
    expect(verdict(input({ model: share(1, n), before: share(0, n), shuffled: share(0, n) })).outcome).toBe(
      'unclear',
    );
    expect(verdict({ steps: 12 })).toMatchObject({ outcome: 'unclear', pictures: 0 });
  });

  it('is unclear where a large gain is neither certain nor excluded', () => {
    const model = [1, 1, 0, 1, 0, 0, 1, 0];
    const without = [0, 1, 1, 0, 0, 0, 1, 0];
    const nothing = model.map(() => 0);
    expect(verdict(input({ model, before: without })).outcome).toBe('unclear');
    expect(verdict(input({ model, before: nothing, shuffled: without })).outcome).toBe('unclear');
    expect(verdict(input({ model, shuffled: nothing })).outcome).toBe('unclear'); // before is unknown
    expect(verdict(input({ model, before: nothing, shuffled: nothing })).outcome).toBe('learned');
  });

  it('measures differences in the units of the score', () => {
    const n = 61;
    const cider = (value: number) => Array.from({ length: n }, (_, i) => value + (i % 3) / 10);
    const made = verdict(input({ model: cider(2.9), before: cider(0.1) }, { headline: 'cider_d' }));
    expect(made.outcome).toBe('learned');
    expect(made.sentences[0]).toMatch(
      /^learned: CIDEr-D 19\.8 → 299\.8 \(95 % interval 29\d\.\d to 30\d\.\d, /,
    );
  });

  it('names what is weak: groups no better with the right picture, or far behind, and frequent confusions', () => {
    const n = 40;
    const groups = [
      { name: 'colour', n, model: 0.9, shuffled: 0.2 },
      { name: 'what is it?', n, model: 0.6, shuffled: 0.7 },
      { name: 'size', n, model: 0.3, shuffled: 0.1 },
    ];
    const confusions = [
      { expected: 'firefighter', found: 'supervillain', times: 14 },
      { expected: 'red', found: 'blue', times: 1 },
    ];
    const made = verdict(
      input({ model: share(0.6, n), before: share(0, n) }, { headline: 'accuracy', groups, confusions }),
    );
    expect(made.weak.map(({ name }) => name)).toEqual(['size', 'what is it?']);
    expect(made.sentences.slice(-2)).toEqual([
      'weak: size 30.0 % (10.0 % with shuffled images); what is it? 60.0 % (70.0 % with shuffled images)',
      'most often confused: "supervillain" for "firefighter" 14 times',
    ]);
  });
});

describe('overfitting', () => {
  const found = {
    step: 90,
    validation: { lowest: 0.52, last: 0.71 },
    training: { then: 0.4, last: 0.12 },
  };

  it('is in the verdict, with what helps', () => {
    const n = 41;
    const pictures = { model: share(0.7, n), before: share(0, n), blank: share(0, n) };
    const made = verdict(input(pictures, { overfitting: found }));
    expect(made.outcome).toBe('learned');
    expect(made.sentences.at(-1)).toBe(
      'overfits after step 90: validation loss 0.520 → 0.710, training loss 0.400 → 0.120; more pictures would help',
    );
    expect(verdict({ steps: 100, overfitting: found }).sentences.at(-1)).toMatch(/^overfits/);
  });

  it('is no reason to train longer', () => {
    const config = { ...defaultConfig('lora+qformer'), data: 'd', model: 'm', output_dir: 'runs/a' };
    const example = { image: 'a.png', fields: {}, source: 'a' };
    const run = { config, recommended: 'lora' as const, example, weights: [] };
    const n = 41;
    const made = (more: object) =>
      nextStep(verdict(input({ model: share(0, n), before: share(0, n) }, more)), run, () => []);
    expect(made({}).command).toContain('--epochs');
    expect(made({ overfitting: found })).toMatchObject({ command: ['data', 'check', 'd'] });
  });
});

describe('the next step after a run that ignores the picture', () => {
  it.each([
    ['lora', '--epochs'],
    ['full', '--preset full'],
  ] as const)('plan recommends %s: %s', (recommended, expected) => {
    const config = { ...defaultConfig('lora'), data: 'd', model: 'm', output_dir: 'runs/a' };
    const example = { image: 'a.png', fields: {}, source: 'a' };
    const pictures = { model: share(0.7, 41), before: share(0, 41), shuffled: share(0.7, 41) };
    const made = verdict(input(pictures));
    expect(made.outcome).toBe('ignores the picture');
    const { command } = nextStep(made, { config, recommended, example, weights: [] }, () => []);
    expect(command.join(' ')).toContain(expected);
  });
});

describe('bootstrap', () => {
  it('covers the true mean of a known distribution in about 95 % of samples', () => {
    let state = 7;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const covered = Array.from({ length: 80 }, (_, seed) => {
      const { low, high } = bootstrap(
        Array.from({ length: 60 }, () => Number(random() < 0.4)),
        seed,
      );
      return Number(low <= 0.4 && 0.4 <= high);
    });
    const rate = covered.reduce((sum, one) => sum + one) / covered.length;
    expect(rate).toBeGreaterThan(0.9);
    expect(rate).toBeLessThan(0.99);
  });

  it('is the same at each call', () => {
    expect(bootstrap([0, 1, 1, 0, 1])).toEqual(bootstrap([0, 1, 1, 0, 1]));
    expect(bootstrap([1, 1, 1])).toEqual({ mean: 1, low: 1, high: 1 });
  });
});
