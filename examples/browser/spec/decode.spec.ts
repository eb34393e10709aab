/** Picture files as Chromium decodes them for the page, beside Node's pixels, which are those of PIL. */
import { mkdtemp, readdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeImage } from '@blip2/data-captions';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundled } from '../../../packages/blip2/spec/bundle';
import { chromiumPath, startChromium } from '../../../packages/trainer/spec/browser';
import type { decode } from '../src/decode';
import { HERE } from './folders';
import { serve } from './site';
import type { Site } from './site';

const IMAGES = fileURLToPath(new URL('../../../packages/data-captions/fixtures/images/', import.meta.url));
const TYPES: Record<string, string> = {
  jpg: 'image/jpeg',
  png: 'image/png',
  gif: 'image/gif',
  webp: 'image/webp',
};
/** PIL clips 16-bit grey, browsers scale it. */
const names = (await readdir(IMAGES)).filter(
  (name) => name.split('.').at(-1)! in TYPES && !name.startsWith('grey16'),
);

/** The bundle, in the page. */
declare const program: { decode: typeof decode };

describe.skipIf(!chromiumPath)('pictures decoded in a browser', () => {
  let site: Site;
  let browser: Browser;
  let page: Page;

  beforeAll(async () => {
    const folder = await mkdtemp(join(tmpdir(), 'browser-decode-'));
    const code = await bundled(join(HERE, 'src/decode.ts'));
    await writeFile(join(folder, 'index.html'), `<!doctype html><script>${code}</script>`);
    site = await serve(folder);
    browser = await startChromium();
    page = await browser.newPage();
    await page.goto(site.url);
  });
  afterAll(async () => {
    await browser?.close();
    site?.close();
  });

  /** The largest difference of a level. */
  async function difference(name: string, bytes: Uint8Array): Promise<number> {
    const found = await page.evaluate(
      async ({ bytes, type }) => {
        const { data, width, height } = await program.decode(
          new Blob([Uint8Array.from(bytes)], { type }),
          'picture',
        );
        return { data: [...data], width, height };
      },
      { bytes: [...bytes], type: TYPES[name.split('.').at(-1)!]! },
    );
    const { data, width, height } = await decodeImage(bytes);
    expect([found.width, found.height, found.data.length]).toEqual([width, height, data.length]);
    return found.data.reduce((most, level, i) => Math.max(most, Math.abs(level - data[i]!)), 0);
  }

  it.each(names)('%s has the same levels', async (name) => {
    const bytes = await readFile(join(IMAGES, name));
    expect(await difference(name, bytes)).toBeLessThanOrEqual(name.startsWith('cmyk') ? 1 : 0);
  });

  it('every level with every transparency has the same levels', async () => {
    const rgba = Uint8Array.from({ length: 256 * 256 * 4 }, (_, i) =>
      i % 4 === 3 ? (i >> 2) & 255 : i >> 10,
    );
    const png = await sharp(rgba, { raw: { width: 256, height: 256, channels: 4 } })
      .png()
      .toBuffer();
    expect(await difference('all.png', png)).toBe(0);
  });

  it('refuses what is no picture, by name', async () => {
    const message = page.evaluate(
      `program.decode(new Blob(['no']), 'a.png').catch(({ message }) => message)`,
    );
    expect(await message).toBe('a.png: this browser cannot decode it; use a PNG, JPEG or WebP picture');
  });
});
