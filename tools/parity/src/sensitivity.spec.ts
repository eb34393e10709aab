import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { useBackend } from '@blip2/nn';
import { readCase } from './case-file';
import { mutations } from './mutations';
import { runCase } from './run-case';
import { sensitivity } from './sensitivity';

const folder = (name: string) => fileURLToPath(new URL(`../cases/${name}`, import.meta.url));
const post = await readCase(folder('opt-post-norm'));
/** Mistakes in the model itself show in any case with a post-norm OPT; the rest are tried by `--sensitivity`. */
const inModel = mutations.filter(({ kernels }) => kernels && !('NnAdamW' in kernels));

describe('deliberate mistakes', () => {
  beforeAll(() => useBackend('auto'));

  it('are caught by a single case, and leave nothing behind', async () => {
    const results = await sensitivity([post], undefined, inModel);
    expect(results.filter(({ caught }) => caught.length === 0)).toEqual([]);
    expect((await runCase(post)).filter(({ ok }) => !ok)).toEqual([]);
  }, 300_000);
});
