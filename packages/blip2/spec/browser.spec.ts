import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { createContext, runInContext } from 'node:vm';
import { useBackend } from '@blip2/nn/node';
import { build } from 'esbuild';
import { beforeAll, describe, expect, it } from 'vitest';
import { run } from './browser-program';
import type { BrowserInput, BrowserResult } from './browser-program';
import { fixtures, golden, goldenFloats } from './golden';

/** The browser globals that the bundle uses, besides JavaScript's own. */
const WEB = { console, performance, setTimeout, structuredClone, TextDecoder, TextEncoder };

describe('the packages in a browser', () => {
  let code: string;
  let input: BrowserInput;

  beforeAll(async () => {
    const { outputFiles, warnings, metafile } = await build({
      entryPoints: [fileURLToPath(new URL('browser-program.ts', import.meta.url))],
      conditions: ['@blip2/source'],
      platform: 'browser',
      format: 'iife',
      globalName: 'program',
      bundle: true,
      write: false,
      metafile: true,
      logLevel: 'silent',
    });
    expect(warnings).toEqual([]);
    expect(Object.values(metafile.outputs).flatMap((output) => output.imports)).toEqual([]);
    code = outputFiles[0]!.text;
    input = await browserInput();
  });

  it('computes the same as Node from bytes, and the captions of transformers', async () => {
    const context = createContext({ ...WEB, input });
    runInContext('self = globalThis; WorkerGlobalScope = Object', context); // tfjs detects a web worker by these
    expect(runInContext('typeof process + typeof require', context)).toBe('undefinedundefined');
    runInContext(code, context);
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
