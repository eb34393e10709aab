/** `blip2 data`: describes a data set and lists its problems. */
import { stat, writeFile } from 'node:fs/promises';
import { Command, InvalidArgumentError } from 'commander';
import { checkData, contactSheet, problemLines } from '@blip2/data-captions';
import type { DataReport, Finding, SplitReport, Task } from '@blip2/data-captions';
import { writeFileAtomic } from '@blip2/weights/node';
import { Printed } from '../errors';
import { openTexts } from '../model';
import type { ImageFlags } from '../options';
import { command, decodingOf, imageOptions, layoutIn, layoutOptions, PICTURES, positive } from '../options';
import { joinParts } from '../parts';
import { findPictures } from '../pictures';
import { paint } from '../printable';
import { joinShards } from '../shard-manifest';
import type { ShardManifest } from '../shard-manifest';
import { findShards } from '../shards';
import type { Ui } from '../ui';
import { columns } from '../ui';

interface CheckFlags extends ImageFlags {
  model?: string;
  task?: Task;
  prompt?: string;
  maxTextLength?: number;
  skipBad?: boolean;
  html?: string;
}

export function dataCommand(ui: Ui): Command {
  return new Command('data')
    .description('Check a data set before training on it, or join captions that several jobs wrote.')
    .addHelpText('after', '\nExample:\n  $ blip2 data check data/emoji/people --html sheet.html')
    .addCommand(checkCommand(ui))
    .addCommand(joinCommand(ui));
}

function joinCommand(ui: Ui): Command {
  return command(
    'join',
    'Join the files that `caption --part` or `answer --part` wrote, after a check that every picture has its row, once; those that cannot be read are listed in the manifest. The files of shards stay as they are, and manifest.json lists them.',
    'blip2 data join captions.jsonl photos',
  )
    .argument('<output>', 'the file that --output named, whose parts are beside it; with shards the folder')
    .argument('<image...>', PICTURES)
    .action(async (output: string, images: string[]) => {
      const shards = await findShards(images);
      if (shards) return describeManifest(await joinShards(output, shards), ui);
      const joined = await joinParts(output, await findPictures(images, ui.io));
      const { rows, failed, parts } = joined;
      const without =
        failed.length > 0
          ? `, no row for ${failed.length} of ${rows + failed.length} pictures, which cannot be read`
          : '';
      ui.result(
        joined,
        `${output}: ${rows} ${rows === 1 ? 'row' : 'rows'} of ${parts.length} parts${without}; ${output}.manifest.json lists them`,
      );
    });
}

function describeManifest(manifest: ShardManifest, ui: Ui): void {
  const { output, rows, failed, shards } = manifest;
  const errors = failed > 0 ? `, ${failed} of them with an error in place of a text` : '';
  ui.result(
    manifest,
    `${output}: ${rows} rows of ${shards.length} shards${errors}; ${output}/manifest.json lists them`,
  );
}

function checkCommand(ui: Ui): Command {
  const checking = command(
    'check',
    'Read every text and image: counts, lengths, duplicates, leaks between splits, unusable rows.',
    'blip2 data check data/emoji/people --model models/blip2-emoji-mini --html sheet.html',
  );
  return imageOptions(layoutOptions(checking))
    .argument('<path>', 'the data set, in any format')
    .option('--model <dir>', 'count tokens, and find texts that this checkpoint cannot use')
    .option('--task <name>', 'caption or vqa: rows without its texts are bad (default: either will do)', task)
    .option('--prompt <text>', 'text before every caption, or the template of questions')
    .option('--max-text-length <n>', 'count texts that would be cut to this many tokens', positive)
    .option('--skip-bad', 'succeed even if rows are bad; they are still listed')
    .option('--html <file>', 'write a contact sheet of the images')
    .action((path: string, flags: CheckFlags) => check(path, flags, ui));
}

/** @throws Printed if rows cannot be used, unless --skip-bad */
async function check(path: string, flags: CheckFlags, ui: Ui): Promise<void> {
  const { model, task, prompt, maxTextLength: max_text_length } = flags;
  const texts = model ? await openTexts(model, { task, prompt, max_text_length }) : { task, prompt };
  const decoding = decodingOf(flags);
  const report = await checkData(path, {
    texts,
    ...layoutIn(flags),
    decoding,
    onProgress: (done, total) => ui.progress('images', `${done} of ${total} images`, done === total),
  });
  if (flags.html) await writeSheet(flags.html, await contactSheet(report, { ...layoutIn(flags), decoding }));
  ui.result(report, () => describe(report) + (flags.html ? `\n\ncontact sheet: ${flags.html}` : ''));
  if (report.usable || flags.skipBad) return;
  const total = report.splits.reduce((sum, { rows }) => sum + rows, 0);
  const bad = `${report.unusable} of ${total} rows cannot be used`;
  throw new Printed(`${path}: ${bad}; repair them, or leave them out with --skip-bad`);
}

/** A device such as /dev/stdout is written to, not replaced. */
async function writeSheet(file: string, html: string): Promise<void> {
  const info = await stat(file).catch(() => undefined);
  await (info && !info.isFile() ? writeFile(file, html) : writeFileAtomic(file, html));
}

function describe(report: DataReport): string {
  const titled = (title: string, count: number, lines: string[], colour: (text: string) => string) =>
    count ? [`\n${colour(`${title}: ${count.toLocaleString('en')}`)}`, ...lines.map((l) => `  ${l}`)] : [];
  const section = (title: string, lines: string[], colour = paint.yellow) =>
    titled(title, lines.length, cut(lines), colour);
  const bad = problemLines(report.bad_rows, SHOWN, ` ${LISTS_ALL}`);
  const findings = (found: Finding[]) => found.map(({ source, what }) => `${source}: ${what}`);
  const leaks = report.leaks.map(({ splits, sources }) => `${splits.join(', ')}: ${sources.join(', ')}`);
  const duplicates = report.duplicates.map((group) => group.map(({ source }) => source).join(', '));
  const repeated = report.commonest.map(({ text, rows }) => `${rows} × ${JSON.stringify(text)}`);
  return [
    columns([HEADER, ...report.splits.map((split) => row(split, report.splits.length))]),
    ...report.splits.flatMap((split) => histogram(split, report.histogram_step)),
    ...titled('rows that cannot be used', report.unusable, bad, paint.red),
    ...section('images in more than one split', leaks, paint.red),
    ...section('duplicate images', duplicates),
    ...section('suspicious texts', findings(report.suspicious)),
    ...section('unusual images', findings(report.odd)),
    ...section('texts on several rows', repeated, paint.dim),
  ].join('\n');
}

const COUNTS = ['rows', 'bad', 'images', 'captions', 'questions'];
const HEADER = ['split', ...COUNTS, 'words', 'tokens', 'cut', 'sides'];

function row(s: SplitReport, splits: number): (string | number)[] {
  const range = (d?: { min: number; median: number; max: number }) =>
    d ? `${d.min}–${d.median}–${d.max}` : '–';
  const sides = s.sides ? `${range(s.sides.width)} × ${range(s.sides.height)}` : '–';
  const counts = [s.rows, s.bad_rows, s.images, s.captions, s.questions];
  const name = s.split ?? (splits > 1 ? '(none)' : 'all');
  return [name, ...counts, range(s.words), range(s.tokens), s.truncated, sides];
}

function histogram({ split, histogram: counts }: SplitReport, step: number): string[] {
  if (counts.length === 0) return [];
  const most = Math.max(...counts);
  const bars = counts.map((count, i) => [
    `${i * step}–${i * step + step - 1}`,
    count,
    '█'.repeat(Math.ceil((30 * count) / most)),
  ]);
  return [`\ntokens per row, ${split ?? 'all rows'}`, columns(bars)];
}

const SHOWN = 10;
const LISTS_ALL = '(--json lists all)';
const cut = (lines: string[]) =>
  lines.length > SHOWN
    ? [...lines.slice(0, SHOWN), `… and ${lines.length - SHOWN} more ${LISTS_ALL}`]
    : lines;

function task(name: string): Task {
  if (name === 'caption' || name === 'vqa') return name;
  throw new InvalidArgumentError('Expected caption or vqa.');
}
