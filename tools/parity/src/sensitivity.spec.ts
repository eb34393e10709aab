import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '@blip2/nn/node';
import { readCase } from './case-file';
import { mutations } from './mutations';
import { runCase } from './run-case';
import { sensitivity } from './sensitivity';

const folder = (name: string) => fileURLToPath(new URL(`../cases/${name}`, import.meta.url));
const few = await Promise.all(['opt-post-norm', 'adapter'].map((name) => readCase(folder(name))));
/** Mistakes in the model itself show in two small cases; the rest are tried by `--sensitivity`. */
const inModel = mutations.filter(({ kernels }) => kernels && !('NnAdamW' in kernels));

describe('deliberate mistakes', () => {
  beforeAll(() => useBackend('auto'));

  it('are caught by two small cases, and leave nothing behind', async () => {
    const results = await sensitivity(few, undefined, inModel);
    expect(results.filter(({ caught }) => caught.length === 0)).toEqual([]);
    expect(results.length).toBeGreaterThan(10);
    for (const of of few) expect((await runCase(of)).filter(({ ok }) => !ok)).toEqual([]);
  }, 300_000);
});
