/** The pages as people see them: in a browser, on a desktop and on a phone, light and dark, with and without script. */
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { chromiumPath, overflow, seriousFindings, startChromium, withPage } from '../../spec/browser';
import { fillRun } from '../../spec/run-folder';
import { compare, writeComparison } from './compare-page';
import { writeReport } from './index';

const CUT_TABLES =
  "[...document.querySelectorAll('.wide')].filter((box) => box.scrollWidth > box.clientWidth).length";

describe.skipIf(!chromiumPath)('pages in a browser', () => {
  let browser: Browser;
  const pages: Record<string, string> = {};

  beforeAll(async () => {
    const root = await mkdtemp(join(tmpdir(), 'report-browser-'));
    const dirs = ['pets', 'a-run-with-a-long-name-in-which-nothing-can-be-broken', 'third'].map((name) =>
      join(root, name),
    );
    for (const [i, dir] of dirs.entries()) {
      const config = { learning_rate: 1 / (i + 1), data: `data/another-folder/${i}` };
      await fillRun(dir, { loss: i + 1, config, finished: i < 2, scores: i ? [0, 0, 0, 1] : undefined });
    }
    pages.report = await writeReport(dirs[0]);
    pages.comparison = join(root, 'compare.html');
    const { runs, comparison } = await compare(dirs);
    await writeComparison(pages.comparison, runs, comparison);
    browser = await startChromium();
  });
  afterAll(() => browser?.close());

  it.each(
    ['report', 'comparison'].flatMap((name) =>
      [1280, 375].flatMap((width) => [false, true].map((dark) => ({ name, width, dark }))),
    ),
  )(
    'the $name has no serious finding of axe and fits its window: $width px, dark: $dark',
    async ({ name, ...view }) => {
      await withPage(browser, pages[name], view, async (page) => {
        expect(await overflow(page)).toBe(0);
        expect(await page.evaluate(CUT_TABLES)).toBe(0);
        expect(await seriousFindings(page)).toEqual([]);
      });
    },
  );

  it('a chart has the values at the pointer', async () => {
    await withPage(browser, pages.report, { width: 1280 }, async (page) => {
      const chart = page.locator('.chart').first();
      const legend = () => chart.locator('.u-legend').innerText();
      expect(await legend()).toMatch(/step\s*100\s*training\s*0\.1\s*validation\s*0\.8/);
      await chart.locator('.u-over').hover({ position: { x: 1, y: 100 } });
      await expect.poll(legend).toMatch(/step\s*0\s*training\s*4\s*validation\s*2/);
      await page.locator('h1').hover();
      await expect.poll(legend).toMatch(/training\s*0\.1/);
    });
  });

  it('the filter hides what is right, and a picture is shown larger', async () => {
    await withPage(browser, pages.report, { width: 375 }, async (page) => {
      const visible = () => page.locator('#pictures li:visible').count();
      expect(await visible()).toBe(4);
      await page.getByLabel('wrong only').check();
      expect(await visible()).toBe(2);
      expect(await page.locator('output').innerText()).toBe('2 pictures');
      await page.getByLabel('wrong only').uncheck();
      await page.locator('.zoom').first().click();
      expect(await page.locator('dialog').isVisible()).toBe(true);
      expect(await page.locator('dialog').innerText()).toContain('</script><script>alert(1)</script>');
      await page.getByText('Close').click();
      expect(await page.locator('dialog').isVisible()).toBe(false);
    });
  });

  it('the comparison of conditions is in view on a phone', async () => {
    await withPage(browser, pages.report, { width: 375 }, async (page) => {
      for (const cell of await page.locator('#results td').all()) {
        const box = await cell.boundingBox();
        if (box) expect(box.x + box.width).toBeLessThanOrEqual(375);
      }
      const pseudo = "getComputedStyle(document.querySelector('#results td'), '::before').content";
      expect(await page.evaluate(pseudo)).toContain('exact match');
    });
  });

  it('it is readable without script', async () => {
    await withPage(browser, pages.report, { width: 1280, script: false }, async (page) => {
      expect(await page.locator('.plot svg polyline').first().isVisible()).toBe(true);
      expect(await page.locator('#pictures li:visible').count()).toBe(4);
      expect(await page.getByText('wrong only').isVisible()).toBe(false);
    });
  });

  it('no box of code is cut on a desktop', async () => {
    await withPage(browser, pages.report, { width: 1280 }, async (page) => {
      const cut = await page.evaluate(
        "[...document.querySelectorAll('pre')].filter((box) => box.scrollWidth > box.clientWidth).length",
      );
      expect(cut).toBe(0);
    });
  });
});
