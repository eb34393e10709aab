import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { runInContext } from 'node:vm';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { run } from './browser-program';
import type { BrowserInput, BrowserResult } from './browser-program';
import { bundled, inBrowser } from './bundle';
import { fixtures, golden, goldenFloats } from './golden';

describe('the packages in a browser', () => {
  let code: string;
  let input: BrowserInput;

  beforeAll(async () => {
    code = await bundled(fileURLToPath(new URL('browser-program.ts', import.meta.url)));
    input = await browserInput();
  });

  it('computes the same as Node from bytes, and the captions of transformers', async () => {
    const context = inBrowser(code, { input });
    const result = JSON.parse(
      (await runInContext('program.run(input).then(JSON.stringify)', context)) as string,
    ) as BrowserResult;

    await useBackend('cpu');
    expect(result).toEqual(await run(input));
    expect(result.ids).toEqual(plain.ids);
    expect(result.adapterIds).toEqual(adapted.ids);
  });
});

const [plain, adapted] = ['greedy, left-padded', 'adapter greedy, left-padded'].map((title) =>
  golden.generate.find(({ name }) => name === title)!,
) as [Generated, Generated];
type Generated = (typeof golden.generate)[number];

async function browserInput(): Promise<BrowserInput> {
  const bytes = async (path: string) => [...(await readFile(fixtures + path))];
  const text = (path: string) => readFile(fixtures + path, 'utf8');
  const { shape, values } = (await goldenFloats()).get('pixel_values')!;
  return {
    model: { config: await text('tiny/config.json'), weights: await bytes('tiny/model.safetensors') },
    adapter: {
      config: await text('tiny-adapter/adapter_config.json'),
      weights: await bytes('tiny-adapter/adapter_model.safetensors'),
    },
    pixels: { values: [...values], shape },
    tokens: plain.tokens,
    options: plain.options,
  };
}
