import { describe, expect, it } from 'vitest';
import { nearest, probableName } from './nearest';

describe('nearest names', () => {
  const names = ['seed', 'task', 'learning_rate', 'crop+flip', 'warmup_steps'];

  it('suggests a name that is few edits away or contains the word, or else none', () => {
    expect(probableName('sede', names)).toBe('seed');
    expect(probableName('Learning_rat', names)).toBe('learning_rate');
    expect(probableName('flip', names)).toBe('crop+flip');
    expect(probableName('zzzzzzzz', names)).toBeUndefined();
    expect(probableName('seed', [])).toBeUndefined();
  });

  it('finds the intended part of a dotted name, also for a regular expression', () => {
    const tensors = [
      'query_tokens',
      'model.layers.0.self_attn.q_proj.weight',
      'model.layers.0.mlp.fc1.weight',
    ];
    expect(nearest('q_prjo', tensors, 1)).toEqual([tensors[1]]);
    expect(nearest('mpl.fc1', tensors, 1)).toEqual([tensors[2]]);
    expect(nearest('^mpl\\.fc1\\.', tensors, 1)).toEqual([tensors[2]]);
    expect(nearest('.*q_prj', tensors)).toHaveLength(3);
    expect(nearest('.*q_prj', tensors)[0]).toBe(tensors[1]);
  });
});
