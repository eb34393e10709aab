/** `@blip2/data-captions` and `@blip2/trainer` as bundlers put them into pages. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Context } from 'node:vm';
import { runInContext } from 'node:vm';
import * as dataCaptions from '@blip2/data-captions';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { bundled, inBrowser } from '../../blip2/spec/bundle';
import * as trainer from '../src/index';
import { run } from './browser-program';
import type { ProgramInput } from './browser-program';
import { TINY_MODEL } from './tiny';

type Program = Record<'dataCaptions' | 'trainer', object>;

describe('the packages in a browser', () => {
  let context: Context;

  beforeAll(async () => {
    context = inBrowser(await bundled(fileURLToPath(new URL('browser-program.ts', import.meta.url))));
  });

  it('export what they export in Node, without what needs Node', () => {
    const inPage = runInContext('program', context) as Program;
    expect(Object.keys(dataCaptions)).toEqual(expect.arrayContaining(Object.keys(inPage.dataCaptions)));
    expect(Object.keys(trainer)).toEqual(expect.arrayContaining(Object.keys(inPage.trainer)));
    expect(inPage.dataCaptions).not.toHaveProperty('openDataset');
    expect(inPage.trainer).not.toHaveProperty('fit');
  });

  it('compute the same as in Node: pixels, tokens, losses and trained weights', async () => {
    const json = async (name: string) =>
      JSON.parse(await readFile(join(TINY_MODEL, name), 'utf8')) as Record<string, unknown>;
    const [width, height] = [50, 41];
    const input: ProgramInput = {
      picture: {
        data: Array.from({ length: width * height * 4 }, (_, i) => (i * i * 31 + i) % 256),
        width,
        height,
      },
      preprocessor: await json('preprocessor_config.json'),
      tokenizer: await json('tokenizer.json'),
    };
    context.input = structuredClone(input);
    const text = (await runInContext('program.run(input).then(JSON.stringify)', context)) as string;
    await useBackend('cpu');
    const expected = await run(input);
    expect(JSON.parse(text)).toEqual(expected);
    expect(expected.text).toBe('a dog');
    expect(expected.losses[28]).toBeLessThan(expected.losses[0]!); // the same rows, 14 epochs later
  });
});
