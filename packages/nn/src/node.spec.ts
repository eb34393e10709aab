import * as tf from '@tensorflow/tfjs-core';
import { describe, expect, it } from 'vitest';
import { useBackend } from './node';

describe('useBackend', () => {
  it('says which backends there are', async () => {
    await expect(useBackend('cuda' as never)).rejects.toThrow('unknown backend "cuda"; choose auto, native');
  });

  it('bfloat16 is an error where the backend computes in float32 only; float32 is what every backend has', async () => {
    await expect(useBackend('cpu', { precision: 'bfloat16' })).rejects.toThrow(
      'cpu: precision bfloat16 needs the backend native; cpu computes in float32',
    );
    expect((await useBackend('cpu', { precision: 'float32' })).name).toBe('cpu');
  });

  it('hands the precision to a backend that offers it, float32 unless asked otherwise', async () => {
    await useBackend('cpu');
    const backend = tf.backend() as { setPrecision?: (precision: string) => void };
    const got: string[] = [];
    backend.setPrecision = (precision) => void got.push(precision);
    const report = await useBackend('cpu', { precision: 'bfloat16' });
    await useBackend('cpu');
    delete backend.setPrecision;
    expect(got).toEqual(['bfloat16', 'float32']);
    expect(report.tried.at(-1)!.why).toContain('bfloat16');
  });

  it('takes the fastest precision that a backend offers where auto is asked for', async () => {
    expect((await useBackend('cpu', { precision: 'auto' })).precision).toBe('float32');
    const backend = tf.backend() as { precisions?: string[]; setPrecision?: (precision: string) => void };
    const got: string[] = [];
    backend.setPrecision = (precision) => void got.push(precision);
    backend.precisions = ['bfloat16', 'float32'];
    const report = await useBackend('cpu', { precision: 'auto' });
    delete backend.precisions;
    delete backend.setPrecision;
    expect(got).toEqual(['bfloat16']);
    expect(report.precision).toBe('bfloat16');
  });
});
