/** The contact sheet: a page with the results of a check and pictures of the rows, flagged ones first. */
import type { Layout } from '../layout';
import { openSplits } from '../dataset';
import type { DecodeOptions } from '../decode-image';
import { problemLines } from '../errors';
import type { Example } from '../example';
import { allCaptions } from '../example';
import { thumbnail } from '../thumbnail';
import type { DataReport, Finding } from './check';

const SIDE = 144;

export interface SheetOptions extends Layout {
  /** Number of pictures shown. Default 96. */
  most?: number;
  decoding?: DecodeOptions;
}

/** One self-contained HTML document with pictures. @throws DataError as checkData does */
export async function contactSheet(
  report: DataReport,
  { most = 96, decoding, ...layout }: SheetOptions = {},
): Promise<string> {
  const { splits } = await openSplits(report.path, layout);
  const rows = splits.flatMap(({ split, examples }) => examples.map((example) => ({ split, example })));
  const remarks = remarksBySource(report);
  const flagged = rows.filter(({ example }) => remarks.has(example.source)).slice(0, most / 2);
  const rest = rows.filter(({ example }) => !remarks.has(example.source));
  const step = Math.max(1, rest.length / (most - flagged.length));
  const spread = rest.filter((_, i) => Math.floor(i / step) !== Math.floor((i - 1) / step));
  const shown = [...flagged, ...spread].slice(0, most);
  const cards: string[] = [];
  for (const { split, example } of shown)
    cards.push(await card(example, split, remarks.get(example.source) ?? [], decoding));
  return page(report, cards, rows.length);
}

function remarksBySource(report: DataReport): Map<string, string[]> {
  const remarks = new Map<string, string[]>();
  const add = (source: string, what: string) => remarks.set(source, [...(remarks.get(source) ?? []), what]);
  for (const { source, expected, found } of report.bad_rows)
    add(source, `expected ${expected}, found ${found}`);
  for (const { source, what } of [...report.suspicious, ...report.odd]) add(source, what);
  for (const { sources, splits } of report.leaks)
    for (const source of sources) add(source, `the same picture is in ${splits.join(' and ')}`);
  for (const group of report.duplicates)
    for (const { source } of group) add(source, `one of ${group.length} files with this content`);
  return remarks;
}

async function card(
  example: Example,
  split: string | undefined,
  remarks: string[],
  decoding?: DecodeOptions,
): Promise<string> {
  const { question, answer, answers, source } = example;
  const texts = allCaptions(example).map((text) => `<dd>${escape(text)}</dd>`);
  const count = answers ? ` (${answers.length} answers)` : '';
  if (question !== undefined) texts.push(`<dd>${escape(question)} <b>${escape(answer!)}</b>${count}</dd>`);
  const uri = await thumbnail(example.image, SIDE, decoding);
  const picture = uri ? `<img src="${uri}" alt="" loading="lazy">` : '<div class="none">no picture</div>';
  const flags = remarks.map((what) => `<dd class="flag">${escape(what)}</dd>`);
  const place = `<dt>${escape([split, source.slice(source.lastIndexOf('/') + 1)].filter(Boolean).join(' · '))}</dt>`;
  return `<li${remarks.length ? ' class="flagged"' : ''}>${picture}<dl>${place}${texts.join('')}${flags.join('')}</dl></li>`;
}

function page(report: DataReport, cards: string[], rows: number): string {
  const { splits } = report;
  const name = (s: (typeof splits)[number]) => s.split ?? (splits.length > 1 ? '(none)' : 'all');
  const columns: [string, (s: (typeof splits)[number]) => string][] = [
    ['split', name],
    ['rows', (s) => number(s.rows)],
    ['bad', (s) => number(s.bad_rows)],
    ['images', (s) => number(s.images)],
    ['captions', (s) => number(s.captions)],
    ['questions', (s) => number(s.questions)],
    ['words, median and most', (s) => (s.words ? `${s.words.median}, ${s.words.max}` : '–')],
    ['tokens, 95 % and most', (s) => (s.tokens ? `${s.tokens.p95}, ${s.tokens.max}` : '–')],
    ['cut', (s) => number(s.truncated)],
  ];
  const cell = (tag: string, text: string) => `<${tag}>${escape(text)}</${tag}>`;
  const table = [
    `<thead><tr>${columns.map(([name]) => cell('th', name)).join('')}</tr></thead>`,
    `<tbody>${splits.map((s) => `<tr>${columns.map(([, value], i) => cell(i ? 'td' : 'th', value(s))).join('')}</tr>`).join('')}</tbody>`,
  ].join('');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Data check: ${escape(report.path)}</title><style>${STYLE}</style></head>
<body><main><h1>${report.usable ? 'This data can be used' : 'Some rows cannot be used'}</h1>
<p class="soft">${escape(report.path)}</p>
<div class="wide"><table>${table}</table></div>
${list('Rows that cannot be used', problemLines(report.bad_rows), report.unusable)}
${list(
  'Pictures in more than one split',
  report.leaks.map((l) => `${l.splits.join(', ')}: ${l.sources.join(', ')}`),
)}
${list(
  'Equal pictures',
  report.duplicates.map((group) => group.map(({ source }) => source).join(', ')),
)}
${findings('Suspicious texts', report.suspicious)}
${findings('Unusual pictures', report.odd)}
${list(
  'The commonest texts',
  report.commonest.map(({ text, rows: n }) => `${n} × ${text}`),
)}
<h2>Pictures</h2><p class="soft">${cards.length} of ${number(rows)} rows; those with a remark come first.</p>
<ul class="cards">${cards.join('\n')}</ul>
${splits.map((s) => histogram(s.split, s.histogram, report.histogram_step)).join('')}</main></body></html>
`;
}

const number = (count: number) => count.toLocaleString('en');

function histogram(split: string | null, counts: number[], step: number): string {
  if (counts.length === 0) return '';
  const most = Math.max(...counts);
  const bars = counts.map(
    (count, i) =>
      `<tr><th>${i * step}–${i * step + step - 1}</th><td><div style="width:${(100 * count) / most}%"></div></td><td>${number(count)}</td></tr>`,
  );
  return `<h2>Tokens a row${split ? `, ${escape(split)}` : ''}</h2><table class="bars">${bars.join('')}</table>`;
}

const LISTED = 30;
function findings(title: string, found: Finding[]): string {
  const lines = found.map(({ source, what }) => `${source}: ${what}`);
  return list(title, lines);
}

function list(title: string, lines: string[], count = lines.length): string {
  if (lines.length === 0) return '';
  const more =
    lines.length > LISTED ? `<li class="soft">… and ${number(lines.length - LISTED)} more</li>` : '';
  return `<details${lines.length <= 10 ? ' open' : ''}><summary>${escape(title)} (${number(count)})</summary><ul>${lines
    .slice(0, LISTED)
    .map((line) => `<li>${escape(line)}</li>`)
    .join('')}${more}</ul></details>`;
}

const ESCAPES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};
const escape = (text: string) => text.replace(/[&<>"']/g, (character) => ESCAPES[character]);

const STYLE = `
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2126; --soft: #5b6470; --line: #dfdcd4; --flag: #a3271f; --bar: #0b6b5d; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --card: #1d2126; --ink: #e9e7e2; --soft: #a3abb5; --line: #343a42; --flag: #ff9489; --bar: #5cc8b5; } }
* { box-sizing: border-box; } body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1rem 4rem; } h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; }
.soft { color: var(--soft); overflow-wrap: anywhere; } .wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: .6rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } .wide table { width: 100%; }
th, td { padding: .35rem .8rem; text-align: right; border-top: 1px solid var(--line); } thead th { border: 0; color: var(--soft); font-weight: 500; }
th:first-child { text-align: left; } .bars { width: 100%; max-width: 40rem; } .bars th, .bars td { border: 0; padding: .1rem .5rem; font-weight: 400; white-space: nowrap; }
.bars td:nth-child(2) { width: 100%; } .bars div { height: .8rem; min-width: 1px; background: var(--bar); border-radius: .2rem; }
details { margin-top: 1rem; } summary { cursor: pointer; font-weight: 600; } details li { overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .8rem; list-style: none; margin: 0; padding: 0; }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .6rem; } .cards .flagged { border-color: var(--flag); }
.cards img, .none { display: block; width: 100%; height: 9rem; object-fit: contain; background: #fff; border-radius: .3rem; color: #5b6470; }
dl { margin: .5rem 0 0; font-size: .88rem; overflow-wrap: anywhere; } dt { color: var(--soft); font-size: .74rem; } dd { margin: 0 0 .2rem; line-height: 1.3; }
.flag { color: var(--flag); } .flag::before { content: '⚑ '; }
`;
