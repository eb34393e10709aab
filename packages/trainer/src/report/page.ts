/** One HTML file that needs nothing else: style and script are in it, and its policy lets it load nothing. */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import type { Html } from './html';
import { html } from './html';

export interface Page {
  title: string;
  /** what the page begins with: the header, and the most important part */
  top: Html;
  /** the others by their id; absent ones are left out */
  sections: [id: string, name: string, section: Html | undefined][];
}

const { resolve } = createRequire(import.meta.url);
const file = (name: string) => readFile(resolve(name), 'utf8');

/** The first bytes of every page that this program makes; `compare` overwrites no other file. */
export const GENERATOR = '<!doctype html>\n<html lang="en">\n<meta name="generator" content="blip2">';

export async function renderPage({ title, top, sections }: Page): Promise<string> {
  const [style, plotStyle, script] = await Promise.all([
    file('@blip2/trainer/page/report.css'),
    file('uplot/dist/uPlot.min.css'),
    pageScript(),
  ]);
  const sha256 = createHash('sha256').update(script).digest('base64');
  const policy = `default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-${sha256}'`;
  const there = sections.filter(([, , section]) => section !== undefined);
  const links = there.map(([id, name]) => html`<a href="#${id}">${name}</a>`);
  const nav = html`<nav aria-label="Contents">${links}</nav>`;
  return `${GENERATOR}
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
${html`<meta http-equiv="Content-Security-Policy" content="${policy}" /> <title>${title}</title>`}
<style>${plotStyle}${style}</style>
<body>
<main>
${html`${top} ${nav} ${there.map(([, , section]) => section)}`}
</main>
<script>${script}</script>
</body>
</html>
`;
}

/** uPlot with its licence, and our own script, which is no module here. */
async function pageScript(): Promise<string> {
  const [licence, plot, chart, own] = await Promise.all([
    file('uplot/LICENSE'),
    file('uplot/dist/uPlot.iife.min.js'),
    file('@blip2/trainer/page/chart.js'),
    file('@blip2/trainer/page/report.js'),
  ]);
  const charts = chart.replace(/^export /m, '');
  return `\n/*! uPlot, https://github.com/leeoniya/uPlot\n${licence}*/\n${plot}\n${charts}\n${own}`;
}
