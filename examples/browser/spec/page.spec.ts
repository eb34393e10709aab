/**
 * The page as visitors use it, in a browser. BROWSER_SCREENSHOTS names a folder for pictures of it, at 1280 and 375 pixels, light and
 * dark.
 */
import { mkdtemp, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { useBackend } from '@blip2/nn/node';
import { build as bundle } from 'esbuild';
import type { Browser, Page } from 'playwright-core';
import { build } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chromiumPath, look, startChromium } from '../../../packages/trainer/spec/browser';
import { captionsInNode, HERE, fitInNode, makeFiles } from './folders';
import { serve } from './site';
import type { Site } from './site';

const SHOTS = process.env.BROWSER_SCREENSHOTS;
const MARKUP = '<img src=x onerror="document.title=1">';
/** On a machine with other work. */
const LONG = 240_000;

it('its programs import nothing of Node', async () => {
  const { warnings, metafile } = await bundle({
    entryPoints: [join(HERE, 'src/main.tsx'), join(HERE, 'src/worker.ts')],
    conditions: ['@blip2/source'],
    platform: 'browser',
    format: 'esm',
    bundle: true,
    write: false,
    outdir: 'unused',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    metafile: true,
    logLevel: 'silent',
  });
  expect(warnings).toEqual([]);
  expect(Object.values(metafile.outputs).flatMap(({ imports }) => imports)).toEqual([]);
});

describe.skipIf(!chromiumPath)('the page in a browser', () => {
  let site: Site;
  let browser: Browser;
  let page: Page;
  let files: string[];
  /** What it may never cause: messages, errors, dialogs and requests to elsewhere. */
  const unwanted: string[] = [];

  beforeAll(async () => {
    await useBackend('wasm');
    const { folder: publicDir, drawings } = await makeFiles();
    files = drawings;
    const outDir = await mkdtemp(join(tmpdir(), 'browser-page-'));
    await build({
      configFile: join(HERE, 'vite.config.ts'),
      publicDir,
      build: { outDir, emptyOutDir: true },
    });
    site = await serve(outDir);
    browser = await startChromium();
    page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.setDefaultTimeout(LONG);
    page.on('console', (message) => unwanted.push(message.text()));
    page.on('pageerror', (error) => unwanted.push(error.message));
    page.on('dialog', (dialog) => unwanted.push(dialog.message()));
    page.on('request', (request) => {
      const url = request.url().replace(/^blob:/, '');
      if (!url.startsWith(new URL(site.url).origin)) unwanted.push(url);
    });
    await page.goto(site.url);
    await page.getByText('Ready.').waitFor();
  }, 2 * LONG);
  afterAll(async () => {
    await browser?.close();
    site?.close();
  });

  const card = (name: string) =>
    page.locator('.card').filter({ has: page.getByAltText(name, { exact: true }) });
  const teach = (name: string) => page.getByLabel(`Caption to teach for ${name}`);
  /** The caption of the base, or the one now. */
  const caption = async (name: string, which: 'Before' | 'Now') => {
    const text = card(name).locator(`dt:text-is("${which}") + dd`);
    await expect.poll(() => text.innerText(), { timeout: LONG }).not.toMatch(/…$/);
    return text.innerText();
  };

  it(
    'runs no script of a caption: its policy forbids inline ones',
    async () => {
      const before = unwanted.length;
      const ran = await page.evaluate(() => {
        const script = document.createElement('script');
        script.textContent = 'globalThis.ran = true';
        document.body.append(script);
        script.remove();
        return 'ran' in globalThis;
      });
      expect(ran).toBe(false);
      await expect.poll(() => unwanted.splice(before).join()).toContain('Content Security Policy');
    },
    LONG,
  );

  it(
    'names what computes, and that a GPU would be faster',
    async () => {
      expect(await page.locator('header').innerText()).toMatch(/WebAssembly.*slower than a GPU/);
      expect(await page.getByRole('button', { name: 'Train' }).isDisabled()).toBe(true);
      await look(page, 'empty', SHOTS);
    },
    LONG,
  );

  it(
    'captions dropped pictures as Node does',
    async () => {
      const dropped = await Promise.all(
        files.map(async (file) => ({ name: basename(file), bytes: [...(await readFile(file))] })),
      );
      const transfer = await page.evaluateHandle((pictures) => {
        const made = new DataTransfer();
        for (const { name, bytes } of pictures)
          made.items.add(new File([Uint8Array.from(bytes)], name, { type: 'image/png' }));
        return made;
      }, dropped);
      await page.dispatchEvent('body', 'drop', { dataTransfer: transfer });
      const found: string[] = [];
      for (const { name } of dropped) found.push(await caption(name, 'Before'));
      expect(found).toEqual(await captionsInNode(files));
    },
    LONG,
  );

  it(
    'refuses a file that is no picture, and shows markup as text',
    async () => {
      const name = `${MARKUP}.png`;
      await page.setInputFiles('input[type=file]', {
        name,
        mimeType: 'image/png',
        buffer: Buffer.from('no'),
      });
      await card(name).getByText(`${name}: this browser cannot decode it`).waitFor();
      expect(await page.title()).toBe('Teach BLIP-2 in this tab');
      await page.getByRole('button', { name: `Remove ${name}` }).press('Enter');
      await card(name).waitFor({ state: 'detached' });
    },
    LONG,
  );

  it(
    'learns captions from drawings, by keyboard; Node has the same captions with the adapter, and trains the same bits',
    async () => {
      await draw();
      await teach('red-apple.png').fill('my lunch');
      await teach('rocket.png').fill('off to the moon');
      await teach('drawing 1.png').fill('a big cross');
      await page.getByRole('spinbutton', { name: 'Steps' }).fill('30');
      await page.getByRole('spinbutton', { name: 'Steps' }).press('Enter');
      await page.getByText(/Step \d+ of 30/).waitFor();
      await page.getByText('Done: 30 steps').waitFor();
      const points = (await page.locator('polyline').getAttribute('points'))!.split(' ');
      const heights = points.map((point) => Number(point.split(',')[1]));
      expect(heights).toHaveLength(30);
      const label = await page.getByRole('img', { name: 'Loss by step' }).getAttribute('aria-label');
      const last = Number(/last value (\S+)/.exec(label!)![1]);
      const first = Number(await page.locator('.curve text').first().textContent());
      expect(last).toBeLessThan(first / 4);
      const shown: string[] = [];
      for (const file of files) shown.push(await caption(basename(file), 'Now'));
      expect(shown).toContain('my lunch');
      expect(shown).toContain('off to the moon');
      const adapter = await downloadAll();
      expect(shown).toEqual(await captionsInNode(files, adapter));
      const weights = await readFile(join(adapter, 'adapter_model.safetensors'));
      expect(weights.equals(await weightsInNode())).toBe(true);
      await look(page, 'trained', SHOTS);
    },
    2 * LONG,
  );

  it(
    'stops when asked, and describes new pictures with what it learned',
    async () => {
      await page.getByLabel('What trains').selectOption('lora');
      await page.getByRole('spinbutton', { name: 'Steps' }).fill('2000');
      await page.getByRole('button', { name: 'Train' }).press('Enter');
      await page.getByText(/Step \d+ of 2000/).waitFor();
      await page.getByRole('button', { name: 'Stop' }).press('Enter');
      await page.getByText(/Done: \d+ steps/).waitFor();
      await page.setInputFiles('input[type=file]', {
        name: 'new.png',
        mimeType: 'image/png',
        buffer: await readFile(files[0]!),
      });
      expect(await caption('new.png', 'Now')).toBe(await caption(basename(files[0]!), 'Now'));
      expect(unwanted).toEqual([]);
    },
    LONG,
  );

  it(
    'has the same captions and losses on WebGPU, in software',
    async () => {
      const gpu = await startChromium('--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader');
      try {
        const other = await gpu.newPage();
        other.setDefaultTimeout(2 * LONG);
        await other.goto(`${site.url}?backend=webgpu`);
        await other.getByText('Ready. It computes by WebGPU').waitFor();
        await other.setInputFiles('input[type=file]', files[0]!);
        const before = other.locator('dd').first();
        await expect
          .poll(() => before.innerText(), { timeout: LONG })
          .toBe((await captionsInNode([files[0]!]))[0]);
        await other.getByPlaceholder('your caption').fill('a cat');
        await other.getByLabel('What trains').selectOption('lora');
        await other.getByRole('spinbutton', { name: 'Steps' }).fill('3');
        await other.getByRole('button', { name: 'Train' }).press('Enter');
        await other.getByText('Done: 3 steps').waitFor();
        const { losses } = await fitInNode([[files[0]!, 'a cat']], { preset: 'lora', steps: 3 });
        expect(await other.locator('figcaption').innerText()).toBe(
          `Loss ${losses.at(-1)!.toFixed(2)} after step 3`,
        );
      } finally {
        await gpu.close();
      }
    },
    2 * LONG, // shaders are compiled for the processor
  );

  it(
    'adds a drawing of the site, and shows when one cannot be loaded',
    async () => {
      const before = unwanted.length;
      const cards = await page.locator('.card').count();
      const [button, alert] = [
        page.getByRole('button', { name: 'an apple' }),
        page.locator('.sources [role=alert]'),
      ];
      await page.route('**/red-apple.png', (route) => route.fulfill({ status: 503 }));
      await button.click();
      await alert.waitFor();
      expect(await alert.innerText()).toContain('red-apple.png cannot be loaded: the server answered 503');
      expect(unwanted.splice(before).join()).toContain('503');
      await page.unroute('**/red-apple.png');
      await button.click();
      await expect.poll(() => page.locator('.card').count(), { timeout: LONG }).toBe(cards + 1);
      await expect.poll(() => alert.count()).toBe(0);
    },
    LONG,
  );

  /** A cross on the pad. */
  async function draw(): Promise<void> {
    const pad = page.getByRole('img', { name: 'Place to draw' });
    await page.getByRole('radio', { name: 'blue' }).check();
    const { x, y } = (await pad.boundingBox())!;
    for (const [from, to] of [
      [60, 200],
      [200, 60],
    ] as const) {
      await page.mouse.move(x + from, y + 60);
      await page.mouse.down();
      await page.mouse.move(x + to, y + 200, { steps: 5 });
      await page.mouse.up();
    }
    await page.getByRole('button', { name: 'Add this drawing' }).press('Enter');
    await caption('drawing 1.png', 'Before');
  }

  /** The adapter's weights, trained in Node on the same three pictures. */
  async function weightsInNode(): Promise<Buffer> {
    const drawn = await page.evaluate(() => document.querySelector('canvas')!.toDataURL());
    const [apple, rocket] = ['red-apple', 'rocket'].map((name) => files.find((file) => file.includes(name))!);
    const run = await fitInNode(
      [
        [apple!, 'my lunch'],
        [rocket!, 'off to the moon'],
        [Buffer.from(drawn.split(',')[1]!, 'base64'), 'a big cross'],
      ],
      { preset: 'lora+qformer', steps: 30 },
    );
    return Buffer.from(run.files.get('adapter_model.safetensors') as Uint8Array);
  }

  /** Every file of the adapter, in a folder. */
  async function downloadAll(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'browser-adapter-'));
    for (const name of ['adapter_config.json', 'adapter_model.safetensors', 'README.md']) {
      const download = page.waitForEvent('download');
      await page.getByRole('link', { name }).press('Enter');
      await (await download).saveAs(join(folder, name));
    }
    return folder;
  }
});
