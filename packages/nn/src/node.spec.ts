import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { useBackend } from './node';

describe('useBackend', () => {
  it('lists the available backends', async () => {
    await expect(useBackend('cuda' as never)).rejects.toThrow('unknown backend "cuda"; choose auto, native');
  });

  it('bfloat16 is an error on a backend without it; every backend has float32', async () => {
    await expect(useBackend('cpu', { precision: 'bfloat16' })).rejects.toThrow(
      'cpu: precision bfloat16 needs the backend native; cpu computes in float32',
    );
    expect((await useBackend('cpu', { precision: 'float32' })).name).toBe('cpu');
  });

  it('sets the precision of a backend that has one, by default float32', async () => {
    await useBackend('cpu');
    const backend = tf.backend() as { setPrecision?: (precision: string) => void };
    const precisions: string[] = [];
    backend.setPrecision = (precision) => void precisions.push(precision);
    const report = await useBackend('cpu', { precision: 'bfloat16' });
    await useBackend('cpu');
    delete backend.setPrecision;
    expect(precisions).toEqual(['bfloat16', 'float32']);
    expect(report.tried.at(-1)!.why).toContain('bfloat16');
  });

  it('for auto, selects the fastest precision of the backend', async () => {
    expect((await useBackend('cpu', { precision: 'auto' })).precision).toBe('float32');
    const backend = tf.backend() as { precisions?: string[]; setPrecision?: (precision: string) => void };
    const precisions: string[] = [];
    backend.setPrecision = (precision) => void precisions.push(precision);
    backend.precisions = ['bfloat16', 'float32'];
    const report = await useBackend('cpu', { precision: 'auto' });
    delete backend.precisions;
    delete backend.setPrecision;
    expect(precisions).toEqual(['bfloat16']);
    expect(report.precision).toBe('bfloat16');
  });
});
