/**
 * Studio as people use it, in a browser and by keyboard, with a real run of a tiny model. STUDIO_SCREENSHOTS names a folder for pictures
 * of its views, at 1280 and 375 pixels, light and dark.
 */
import { gzipSync } from 'node:zlib';
import { mkdtemp, readdir, readFile, realpath, rename, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { startStudio } from '@blip2/studio';
import type { RunningStudio } from '@blip2/studio';
import type { Browser, BrowserContext, Page } from 'playwright-core';
import { build } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bundle } from '../../../tsup.config';
import { chromiumPath, look, startChromium } from '../../trainer/spec/browser';
import { TINY, tinyData } from './testing';

const PAGE = fileURLToPath(new URL('../../studio/page/vite.config.ts', import.meta.url));
const SHOTS = process.env.STUDIO_SCREENSHOTS;
const MARKUP = '<img src=x onerror="document.title=1"><script>alert(1)</script>';
/** A run on a machine with other work. */
const LONG = 240_000;

/** Collects the texts of "Try" that are shown while they are still written. */
const RECORD_GROWTH = `window.grown = [];
  const add = () => document.querySelectorAll('.said[aria-busy=true]').forEach((text) => window.grown.push(text.textContent));
  new MutationObserver(add).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true });`;

async function builtPage(): Promise<string> {
  const outDir = await mkdtemp(join(tmpdir(), 'studio-page-'));
  await build({ configFile: PAGE, build: { outDir, emptyOutDir: true } });
  return outDir;
}

it(
  'the script of the page is small',
  async () => {
    const assets = join(await builtPage(), 'assets');
    const scripts = (await readdir(assets)).filter((name) => name.endsWith('.js'));
    const bytes = await Promise.all(
      scripts.map(async (name) => gzipSync(await readFile(join(assets, name))).length),
    );
    expect(bytes.reduce((sum, size) => sum + size, 0)).toBeLessThan(200_000);
  },
  LONG,
);

describe.skipIf(!chromiumPath)('studio in a browser', () => {
  let root: string;
  let studio: RunningStudio;
  let browser: Browser;
  let context: BrowserContext;
  let page: Page;
  /** What no view may cause: messages, errors, dialogs and requests to elsewhere. */
  const unwanted: string[] = [];

  beforeAll(async () => {
    root = await realpath(await tinyData(4));
    // file names and captions that are markup
    const train = join(root, 'train');
    await rename(join(train, 'red.png'), join(train, 'a <b>&"x.png'));
    const rows = await readFile(join(train, 'metadata.jsonl'), 'utf8');
    const changed = rows
      .replaceAll('"red.png"', '"a <b>&\\"x.png"')
      .replace('a grey thing', JSON.stringify(MARKUP).slice(1, -1));
    await writeFile(join(train, 'metadata.jsonl'), changed);
    const bin = await bundle(new URL('../src/bin.ts', import.meta.url));
    studio = await startStudio({
      folders: [root, TINY],
      runs: join(root, 'runs'),
      port: 0,
      command: [process.execPath, bin],
      page: await builtPage(),
      worker: pathToFileURL(await bundle(new URL('../../captioner/src/worker.ts', import.meta.url))),
    });
    browser = await startChromium();
    context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
    page = await context.newPage();
    page.setDefaultTimeout(LONG / 2); // so that it is this which fails, and says what it waited for
    page.on('console', (message) => unwanted.push(message.text()));
    page.on('pageerror', (error) => unwanted.push(error.message));
    page.on('dialog', (dialog) => unwanted.push(dialog.message()));
    page.on('request', (request) => {
      const url = request.url().replace(/^blob:/, ''); // the picture that is tried
      if (!url.startsWith(new URL(studio.url).origin)) unwanted.push(url);
    });
    const begin = performance.now();
    await page.goto(studio.url);
    await page.getByRole('heading', { name: 'Data' }).waitFor();
    process.stdout.write(`studio: first view after ${(performance.now() - begin).toFixed(0)} ms\n`);
  }, LONG);
  afterAll(async () => {
    await browser?.close();
    await studio?.close();
  });

  it(
    'data: opens, searches, shows markup as text, and edits a caption',
    async () => {
      await page.getByLabel('Data set').first().fill('.');
      await page.keyboard.press('Enter');
      await page.getByText('Rows 1 to 18 of 18').waitFor();
      expect(await page.locator('main').innerText()).toContain(MARKUP);
      expect(await page.title()).toBe('Data – blip2 studio');
      await look(page, 'data', SHOTS);
      await page.getByLabel('Search texts').fill('blue');
      await page.getByText('of 6').waitFor();
      await page.getByLabel('Edit the caption of metadata.jsonl:9').first().press('Enter');
      await page.getByRole('textbox', { name: 'caption of metadata.jsonl:9' }).fill('a blue lamp');
      await page.getByRole('button', { name: 'Save' }).press('Enter');
      await page.getByText('a blue lamp').waitFor();
      expect(await readFile(join(root, 'train', 'metadata.jsonl'), 'utf8')).toContain('"text":"a blue lamp"');
    },
    LONG,
  );

  it(
    'try: without a run there is nothing to drop a picture on',
    async () => {
      await page.getByRole('link', { name: 'Try' }).press('Enter');
      await page.getByText('No run has a result yet.').waitFor();
      expect(await page.getByText('Drop a picture here').isVisible()).toBe(false);
      await page.getByRole('link', { name: 'Data' }).press('Enter');
      await page.getByText('Rows 1 to').waitFor();
    },
    LONG,
  );

  it(
    'data: the check of pictures, and the columns',
    async () => {
      await page.getByRole('button', { name: 'Problems' }).press('Enter');
      await page.getByRole('button', { name: 'Check every picture' }).press('Enter');
      await page.getByRole('heading', { name: 'All rows can be used' }).waitFor();
      expect(await page.locator('main').innerText()).toContain('Pictures in more than one split: 3');
      await look(page, 'problems', SHOTS);
      await page.getByRole('button', { name: 'Columns' }).press('Enter');
      const image = page
        .getByRole('group', { name: 'text is the' })
        .getByRole('button', { name: 'question' });
      await image.press('Enter');
      await expect.poll(() => image.getAttribute('aria-pressed')).toBe('true');
      await look(page, 'columns', SHOTS);
      await page.setViewportSize({ width: 375, height: 900 });
      await image.click({ trial: true, timeout: 20_000 }); // on a phone too, it is there to be pressed
      await page.setViewportSize({ width: 1280, height: 900 });
      await page.getByRole('button', { name: 'Forget my choices' }).press('Enter');
    },
    LONG,
  );

  it(
    'plan: a table of presets, what changes, and what would be chosen',
    async () => {
      await page.getByRole('link', { name: 'Plan' }).press('Enter');
      await page.getByRole('textbox', { name: 'Model' }).fill(TINY);
      await page.getByLabel('Learning rate').fill('0.02');
      await page.getByLabel('Most steps').fill('100');
      await page.getByRole('button', { name: 'Plan', exact: true }).press('Enter');
      await page.getByRole('heading', { name: 'Presets' }).waitFor();
      await page.getByLabel('Most steps').fill('2000');
      await page.getByLabel('Batch size').fill('4');
      await page.getByRole('button', { name: 'Plan', exact: true }).press('Enter');
      await page.locator('del').first().waitFor();
      await page.getByRole('button', { name: 'Show what would be chosen' }).press('Enter');
      await page.getByText('All settings, as config.yaml').waitFor();
      await page.getByRole('radio').first().press('Space');
      await look(page, 'plan', SHOTS);
    },
    LONG,
  );

  it(
    'run: starts, its curve moves, a text changes, it stops, and goes on',
    async () => {
      await page.getByLabel('Name of the run').fill('first');
      await page.getByRole('button', { name: 'Start the run' }).press('Enter');
      await page.getByRole('heading', { name: 'first' }).waitFor();
      const step = async () =>
        Number(/Step ([\d,]+)/.exec(await page.locator('main').innerText())?.[1].replace(',', ''));
      await expect.poll(step, { timeout: LONG }).toBeGreaterThan(0);
      const [first, chart] = [await step(), page.locator('.u-legend').first()];
      const legend = await chart.innerText();
      await expect.poll(step, { timeout: LONG }).toBeGreaterThan(first);
      await expect.poll(() => chart.innerText(), { timeout: LONG }).not.toBe(legend);
      await page.getByText('step 500').first().waitFor(); // sample texts come at quarters of the run
      const texts = await page.locator('.live-samples dd').allInnerTexts();
      expect(new Set(texts).size).toBeGreaterThan(3);
      await page.getByRole('button', { name: 'Stop and save' }).press('Enter');
      await page.getByText('This run has stopped.').waitFor();
      await look(page, 'run', SHOTS); // takes seconds, in which the run would end
      const stopped = await step();
      expect(await readdir(join(root, 'runs', 'first', 'checkpoints'))).not.toEqual([]);
      await page.getByRole('button', { name: 'Go on' }).press('Enter');
      await page.getByText(/This run (is running|has finished)\./).waitFor();
      await expect.poll(step, { timeout: LONG }).toBeGreaterThan(stopped);
      await page.getByText('This run has finished.').waitFor();
    },
    2 * LONG,
  );

  it(
    'results: the report of the run, and runs side by side',
    async () => {
      const report = page.frameLocator('iframe.report');
      await report.getByRole('heading', { name: 'Pictures', exact: true }).waitFor();
      await look(page, 'report', SHOTS);
      await page.getByRole('link', { name: 'Plan' }).press('Enter');
      await page.getByLabel('Most steps').fill('20');
      await page.getByLabel('Name of the run').fill('second');
      await page.getByRole('button', { name: 'Start the run' }).press('Enter');
      await page.getByText('This run has finished.').waitFor();
      await page.getByRole('link', { name: 'Runs' }).press('Enter');
      await page.getByLabel('compare first').press('Space');
      await page.getByLabel('compare second').press('Space');
      await look(page, 'runs', SHOTS);
      await page.getByRole('button', { name: 'Compare 2 runs' }).press('Enter');
      await report.getByRole('heading', { name: 'Comparison of 2 runs' }).waitFor();
      await look(page, 'compare', SHOTS);
    },
    2 * LONG,
  );

  it(
    'try: the base beside a run, word by word, and where each word looks',
    async () => {
      await page.getByRole('link', { name: 'Try' }).press('Enter');
      await page.getByLabel('first').press('Space');
      await page.getByLabel('second').press('Space');
      let end = () => {};
      await page.evaluate(RECORD_GROWTH);
      const drop = (name: string) =>
        page.setInputFiles('input[type=file]', join(root, 'test', `${name}.png`));
      await drop('blue-alpha');
      const words = page.getByRole('list', { name: 'Words of first' }).getByRole('button');
      await words.first().waitFor();
      await page.getByRole('status').waitFor({ state: 'detached' });
      const grown = await page.evaluate<string[]>('window.grown');
      expect(grown.filter((text) => text !== '…')).not.toEqual([]);
      expect(await page.getByRole('heading', { level: 2 }).allInnerTexts()).toEqual(['base', 'first']);
      expect(await words.first().innerText()).toMatch(/\d %$/);
      await words.first().focus();
      await page.getByText(/looks most at the/).waitFor();
      const painted =
        'document.querySelector("canvas").getContext("2d").getImageData(0, 0, 99, 99).data.some((x) => x > 0)';
      // the text comes before what is drawn
      await expect.poll(() => page.evaluate(painted), { timeout: LONG / 2 }).toBe(true);
      await look(page, 'try', SHOTS);
      const isEnded = new Promise<void>((resolve) => (end = resolve));
      let held: number | undefined = 0;
      // as with a model that loads for long; a request that is stopped at once may never come here
      await page.route('**/api/try*', async (route) => {
        if (held === undefined) return route.continue();
        held++;
        await isEnded;
        await route.abort();
      });
      await page.getByRole('button', { name: 'Write again' }).press('Enter');
      await page.getByRole('button', { name: 'Stop' }).press('Enter');
      await page.getByRole('status').waitFor({ state: 'detached' });
      held = 0;
      await page.getByRole('button', { name: 'Write again' }).press('Enter');
      await page.getByRole('status').waitFor();
      await expect.poll(() => held, { timeout: LONG / 2 }).toBeGreaterThan(0);
      held = undefined;
      await drop('red'); // in place of the one that waits
      await words.first().waitFor();
      end();
      await page.unrouteAll({ behavior: 'ignoreErrors' });
      expect(await page.getByRole('alert').count()).toBe(0);
    },
    LONG,
  );

  it(
    'refuses what is no picture, and pictures that are too large to decode, and goes on',
    async () => {
      const token = await page.locator('meta[name=studio-token]').getAttribute('content');
      const send = (data: Buffer) =>
        page.request.post(`${new URL(studio.url).origin}/api/try?run=second`, {
          headers: { 'x-studio-token': token! },
          data,
        });
      const png = await readFile(join(root, 'test', 'blue-alpha.png'));
      const bomb = Buffer.from(png);
      bomb.writeUInt32BE(60_000, 16);
      bomb.writeUInt32BE(60_000, 20);
      const bad = [
        Buffer.from('GIF89a'),
        Buffer.from('<svg/>'),
        png.subarray(0, 60),
        bomb,
        Buffer.alloc(1000, 7),
      ];
      for (const data of bad) expect((await send(data)).status()).toBe(422);
      expect((await send(png)).status()).toBe(200);
    },
    LONG,
  );

  it('nothing was logged, no markup was run, and nothing was loaded from elsewhere', () => {
    expect(unwanted).toEqual([]);
  });
});
