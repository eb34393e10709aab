import { describe, expect, it } from 'vitest';
import { overfitting } from './overfitting';

const training = (losses: number[]) => losses.map((loss, i) => ({ step: i + 1, loss }));
const validation = (losses: number[]) => losses.map((eval_loss, i) => ({ step: 2 * (i + 1), eval_loss }));

describe('overfitting', () => {
  it('is a validation loss that rises while the training loss falls', () => {
    const metrics = [...training([4, 2, 1, 0.5, 0.2, 0.1]), ...validation([2, 1.2, 1.6])];
    expect(overfitting(metrics)).toEqual({
      step: 4,
      validation: { lowest: 1.2, last: 1.6 },
      training: { then: 0.5, last: 0.1 },
    });
  });

  it('is neither a small rise, nor one of both losses, nor seen in two evaluations', () => {
    const falling = training([4, 2, 1, 0.5, 0.2, 0.1]);
    expect(overfitting([...falling, ...validation([2, 1.2, 1.25])])).toBeUndefined();
    expect(overfitting([...falling, ...validation([2, 1.5, 1.2])])).toBeUndefined();
    expect(overfitting([...falling, ...validation([1.2, 2])])).toBeUndefined();
    expect(overfitting([...training([4, 2, 1, 0.5, 3, 9]), ...validation([2, 1.2, 5])])).toBeUndefined();
    expect(overfitting([])).toBeUndefined();
  });
});
