/** Pages in a headless Chromium, for specs. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { Result } from 'axe-core';
import type { Browser, Page } from 'playwright-core';
import { chromium } from 'playwright-core';
import { expect } from 'vitest';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** The program, from `CHROMIUM` or a usual place; undefined where there is none. */
export const chromiumPath = [process.env.CHROMIUM ?? '', ...PLACES].find((path) => existsSync(path));

/** Root, as which containers run, needs --no-sandbox. The pages are our own. */
export const startChromium = (...more: string[]): Promise<Browser> =>
  chromium.launch({
    executablePath: chromiumPath,
    args: ['--no-sandbox', '--disable-dev-shm-usage', ...more],
  });

export interface View {
  width: number;
  dark?: boolean;
  script?: boolean;
}

/** Opens a file and calls `use`; fails on anything that the page logs, and on each request but that for the file itself. */
export async function withPage(
  browser: Browser,
  file: string,
  { width, dark, script = true }: View,
  use: (page: Page) => Promise<void>,
): Promise<void> {
  const page = await browser.newPage({
    viewport: { width, height: 900 },
    colorScheme: dark ? 'dark' : 'light',
    javaScriptEnabled: script,
  });
  const unwanted: string[] = [];
  const url = pathToFileURL(file).href;
  page.on('console', (message) => unwanted.push(message.text()));
  page.on('pageerror', (error) => unwanted.push(error.message));
  page.on('dialog', (dialog) => unwanted.push(dialog.message()));
  page.on('request', (request) => {
    if (request.url().split('#')[0] !== url && !request.url().startsWith('data:'))
      unwanted.push(request.url());
  });
  try {
    await page.goto(url);
    await use(page);
  } finally {
    await page.close();
  }
  if (unwanted.length > 0)
    throw new Error(`expected no message and no request, found ${unwanted.join('; ')}`);
}

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Axe's findings that are serious or critical. */
export async function seriousFindings(page: Page): Promise<string[]> {
  // evaluated by the debugger, which the page's policy does not bind
  await page.evaluate(AXE);
  const violations = await page.evaluate<Result[]>('axe.run().then(({ violations }) => violations)');
  return violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => `${id}: ${nodes[0].html}`);
}

/** Pixels by which the page is wider than its window. */
export const overflow = (page: Page): Promise<number> =>
  page.evaluate('document.documentElement.scrollWidth - document.documentElement.clientWidth');

/**
 * Axe and the width of the window, on a desktop and on a phone, light and dark.
 * @param shots a folder for pictures of the page
 */
export async function look(page: Page, name: string, shots?: string): Promise<void> {
  for (const width of [1280, 375])
    for (const colorScheme of ['light', 'dark'] as const) {
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme });
      expect(await seriousFindings(page), `${name} at ${width} px, ${colorScheme}`).toEqual([]);
      expect(await overflow(page), `${name} at ${width} px`).toBe(0);
      if (shots)
        await page.screenshot({ path: join(shots, `${name}-${width}-${colorScheme}.png`), fullPage: true });
    }
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.emulateMedia({ colorScheme: 'light' });
}
