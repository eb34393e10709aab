/** `blip2 data`: what is in a data set, and what is wrong with it. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { Command as Made } from 'commander';
import { checkData, contactSheet } from '@blip2/data-captions';
import type { DataReport, Finding, SplitReport } from '@blip2/data-captions';
import { Printed } from '../errors';
import { openProcessor } from '../model';
import { command, positive } from '../options';
import type { Ui } from '../ui';
import { columns } from '../ui';

interface CheckFlags {
  model?: string;
  prompt?: string;
  maxTextLength?: number;
  skipBad?: boolean;
  html?: string;
}

export function dataCommand(ui: Ui): Command {
  return new Made('data')
    .description('Look at a data set before training on it.')
    .addHelpText('after', '\nExample:\n  $ blip2 data check data/emoji/people --html sheet.html')
    .addCommand(checkCommand(ui));
}

function checkCommand(ui: Ui): Command {
  return command(
    'check',
    'Read every text and image: counts, lengths, duplicates, leaks between splits, what cannot be used.',
    'blip2 data check data/emoji/people --model models/blip2-emoji-mini --html sheet.html',
  )
    .argument('<path>', 'the data set, in any format')
    .option('--model <dir>', 'count tokens with the tokenizer of this checkpoint')
    .option('--prompt <text>', 'text before every caption, or the template of questions')
    .option('--max-text-length <n>', 'say which texts are longer, in tokens', positive)
    .option('--skip-bad', 'succeed although rows are bad; they are counted and named')
    .option('--html <file>', 'write a contact sheet with pictures')
    .action((path: string, flags: CheckFlags) => check(path, flags, ui));
}

/** @throws Error with the list of bad rows and unreadable images, unless --skip-bad */
async function check(path: string, flags: CheckFlags, ui: Ui): Promise<void> {
  const processor = flags.model ? await openProcessor(flags.model) : undefined;
  const report = await checkData(path, {
    processor,
    prompt: flags.prompt,
    max_text_length: flags.maxTextLength,
    onProgress: (done, total) => ui.progress('images', `${done} of ${total} images`, done === total),
  });
  if (flags.html) await writeFile(flags.html, await contactSheet(report));
  ui.result(report, () => describe(report, ui) + (flags.html ? `\n\ncontact sheet: ${flags.html}` : ''));
  const bad = new Set([...report.bad_rows, ...report.unreadable].map(({ source }) => source)).size;
  if (report.usable || flags.skipBad) return;
  throw new Printed(`${path}: ${bad} rows cannot be used; repair them, or leave them out with --skip-bad`);
}

function describe(report: DataReport, ui: Ui): string {
  const { paint } = ui;
  const section = (title: string, lines: string[], colour = paint.yellow) =>
    lines.length ? [`\n${colour(`${title}: ${lines.length.toLocaleString('en')}`)}`, ...cut(lines)] : [];
  const remarks = (found: Finding[]) => found.map(({ source, what }) => `${source}: ${what}`);
  return [
    columns([HEADER, ...report.splits.map(row)]),
    ...report.splits.flatMap((split) => histogram(split, report.histogram_step)),
    ...section('rows that cannot be used', report.bad_rows.map((p) => `${p.source}: expected ${p.expected}, found ${p.found}`), paint.red), // prettier-ignore
    ...section('images that cannot be read', remarks(report.unreadable), paint.red),
    ...section('pictures in more than one split', report.leaks.map((l) => `${l.splits.join(', ')}: ${l.sources.join(', ')}`), paint.red), // prettier-ignore
    ...section('equal pictures', report.duplicates.map((group) => group.map(({ source }) => source).join(', '))), // prettier-ignore
    ...section('suspicious texts', remarks(report.suspicious)),
    ...section('unusual pictures', remarks(report.odd)),
    ...section('texts on several rows', report.commonest.map(({ text, rows }) => `${rows} × ${JSON.stringify(text)}`), paint.dim), // prettier-ignore
  ].join('\n');
}

const HEADER = ['split', 'rows', 'images', 'captions', 'questions', 'words', 'tokens', 'cut', 'sides', 'bad', 'unreadable']; // prettier-ignore

function row(s: SplitReport): (string | number)[] {
  const range = (d?: { min: number; median: number; max: number }) =>
    d ? `${d.min}–${d.median}–${d.max}` : '–';
  const sides = s.sides ? `${range(s.sides.width)} × ${range(s.sides.height)}` : '–';
  const counts = [s.rows, s.images, s.captions, s.questions];
  return [
    s.split ?? 'all',
    ...counts,
    range(s.words),
    range(s.tokens),
    s.truncated,
    sides,
    s.bad_rows,
    s.unreadable,
  ];
}

function histogram({ split, histogram: counts }: SplitReport, step: number): string[] {
  if (counts.length === 0) return [];
  const most = Math.max(...counts);
  const bars = counts.map((count, i) => [
    `${i * step}–${i * step + step - 1}`,
    count,
    '█'.repeat(Math.ceil((30 * count) / most)),
  ]);
  return [`\ntokens a row, ${split ?? 'all rows'}`, columns(bars)];
}

const SHOWN = 10;
const cut = (lines: string[]) => [
  ...lines.slice(0, SHOWN).map((line) => `  ${line}`),
  ...(lines.length > SHOWN ? [`  … and ${lines.length - SHOWN} more (--json lists all)`] : []),
];
