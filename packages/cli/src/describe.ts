/** Generates a text for each picture and prints them, or writes them to files. Used by `caption` and `answer`. */
import { extname, resolve } from 'node:path';
import type { GenerateOptions } from '@blip2/blip2';
import { DataError } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import { baseFingerprint, generateCaptions } from '@blip2/trainer';
import { withBase } from './base';
import { openDrafts } from './drafts';
import { openCaptionsFile } from './captions-file';
import type { Settings } from './captions-file';
import { Interrupted, Printed, UsageError } from './errors';
import { withInterrupt } from './interrupt';
import type { ModelFlags, Opened } from './model';
import { openModel } from './model';
import { generateOptions } from './options';
import type { DecodingFlags, GenerationFlags, OutputFlags } from './options';
import { fileOf, partOf, picturesOf } from './parts';
import { findPictures } from './pictures';
import { paint } from './printable';
import { openSidecars } from './sidecars';
import type { Ui } from './ui';
import { seconds } from './ui';
import type { Texts, Writer } from './writer';

export interface DescribeFlags extends ModelFlags, GenerationFlags, DecodingFlags, OutputFlags {
  task: 'caption' | 'vqa';
  /** the key of a text in the JSON document and in rows */
  key: 'caption' | 'answer';
  prompt?: string;
  question?: string;
  /** a data set whose captions suggest the next tokens */
  draft?: string;
}

interface Done {
  rows: Texts[];
  failed: { image: string; error: string }[];
}

/** @throws Error, before anything is loaded, if a picture or folder is missing; Printed if pictures could not be read */
export async function describeImages(args: string[], given: DescribeFlags, ui: Ui): Promise<void> {
  checkOutput(given);
  const all = await findPictures(args, ui.io);
  checkStream(all, given, ui);
  const part = given.part === undefined ? undefined : partOf(given.part, ui.io.env);
  const images = part ? picturesOf(all, part) : all;
  const own = part ? { ...given, output: fileOf(given.output!, part) } : given;
  const flags = await withBase(own, ui);
  const opened = await openModel(flags, ui);
  const drafts =
    flags.draft === undefined ? undefined : await openDrafts(flags.draft, opened, flags.prompt, ui);
  if (flags.output === undefined && !flags.sidecars) return print(images, opened, { ...flags, drafts }, ui);
  const writer = flags.sidecars
    ? openSidecars(images, flags.overwrite)
    : await openCaptionsFile(flags.output!, {
        settings: await settingsOf(opened, flags),
        overwrite: flags.overwrite,
        say: (text) => ui.log(text),
      });
  try {
    await write(images, opened, { ...flags, drafts, writer }, ui);
  } finally {
    await writer.close();
  }
}

interface Drafted extends DescribeFlags {
  drafts?: GenerateOptions['draft'];
}

/** Prints each batch when it is done. */
async function print(images: string[], opened: Opened, flags: Drafted, ui: Ui): Promise<void> {
  const onRows = (rows: Texts[]) => {
    if (ui.json || flags.stream || rows.length === 0) return;
    const lines = rows.flatMap(({ image, texts }) =>
      images.length === 1 ? texts : texts.map((text) => `${paint.dim(`${image}:`)} ${text}`),
    );
    ui.result(undefined, lines.join('\n'));
  };
  const { rows, failed } = await describeAll(images, opened, { ...flags, onRows }, ui);
  if (flags.stream) ui.write('\n');
  const results = rows.map(({ image, question, key, texts }) => ({
    image,
    ...(question !== undefined && { question }),
    [key]: texts[0],
    ...(texts.length > 1 && { [`${key}s`]: texts }),
  }));
  if (ui.json) ui.result({ ...namesOf(opened, flags), results, ...(failed.length > 0 && { failed }) }, '');
  refuseFailed(failed, images.length);
}

/** Writes each batch when it is done, and leaves out the pictures that have their text. Ctrl-C stops between two batches. */
async function write(
  images: string[],
  opened: Opened,
  { writer, ...flags }: Drafted & { writer: Writer },
  ui: Ui,
): Promise<void> {
  const skip = new Set(images.filter((image) => writer.has(image)));
  const stopping = 'stopping after this batch (Ctrl-C again stops at once, without it)';
  const { rows, failed, stopped } = await withInterrupt(ui, stopping, async (signal) => {
    const done = await describeAll(
      images,
      opened,
      { ...flags, skip, signal, onRows: (some) => writer.write(some) },
      ui,
    );
    return { ...done, stopped: signal.aborted };
  });
  const where = flags.output ?? 'text files beside the pictures';
  const count = rows.length + skip.size;
  if (stopped)
    throw new Interrupted(
      `stopped: ${count} of ${images.length} pictures have their ${flags.key} in ${where}; the same command continues`,
    );
  const empty = rows.filter(({ texts }) => texts.every((text) => text === '')).map(({ image }) => image);
  ui.result(
    {
      ...namesOf(opened, flags),
      ...(flags.output !== undefined && { output: flags.output }),
      pictures: images.length,
      written: rows.length,
      kept: skip.size,
      ...(empty.length > 0 && { empty }),
      failed,
    },
    [
      `${where}: ${rows.length} ${flags.key}${rows.length === 1 ? '' : 's'} written`,
      ...(skip.size > 0
        ? [`${skip.size} already there${flags.sidecars ? ' (--overwrite replaces them)' : ''}`]
        : []),
      ...(empty.length > 0
        ? [`${empty.length} of them empty, which training does not take: ${empty[0]}`]
        : []),
    ].join(', '),
  );
  refuseFailed(failed, images.length);
}

const namesOf = ({ backend }: Opened, { model, adapter }: DescribeFlags) => ({
  model,
  ...(adapter !== undefined && { adapter }),
  backend,
});

/** @throws Printed for pictures that could not be read */
function refuseFailed({ length }: Done['failed'], total: number): void {
  if (length > 0)
    throw new Printed(
      `${length} of ${total} pictures cannot be read${total > 1 ? '; they are named above' : ''}`,
    );
}

interface Work extends Drafted {
  skip?: ReadonlySet<string>;
  /** checked between batches */
  signal?: AbortSignal;
  onRows: (rows: Texts[]) => Promise<void> | void;
}

/** The texts of all pictures that can be read, in batches. The others are printed and returned with their errors. */
async function describeAll(images: string[], opened: Opened, work: Work, ui: Ui): Promise<Done> {
  const { skip, signal, question, key, batchSize, onRows } = work;
  const todo = images.filter((image) => !skip?.has(image));
  const done: Done = { rows: [], failed: [] };
  const begin = performance.now();
  for (let from = 0; from < todo.length && !signal?.aborted; from += batchSize) {
    const batch = todo
      .slice(from, from + batchSize)
      .map((image): Example => ({ image: resolve(image), question, fields: {}, source: image }));
    const first_row = (skip?.size ?? 0) + from;
    const { texts, failed } = await batchTexts(batch, opened, { ...work, first_row }, ui);
    for (const { image, error } of failed) ui.log(`${paint.red('cannot be read:')} ${image}: ${error}`);
    const rows = [...texts].map(([image, some]): Texts => ({ image, question, key, texts: some }));
    await onRows(rows);
    done.rows.push(...rows);
    done.failed.push(...failed);
    const count = from + batch.length;
    if (todo.length > batchSize)
      ui.progress('pictures', progressLine(count, todo.length, begin), count === todo.length);
  }
  return done;
}

function progressLine(done: number, total: number, begin: number): string {
  const rate = done / Math.max(1e-3, (performance.now() - begin) / 1000);
  const speed = `${rate.toFixed(rate < 10 ? 1 : 0)} pictures/s`;
  return `${done} of ${total} pictures  ${speed}  ETA ${seconds((total - done) / rate)}`;
}

/** The texts of the examples whose picture can be read, by picture. */
async function batchTexts(
  batch: Example[],
  { model, processor }: Opened,
  flags: Drafted & { first_row: number },
  ui: Ui,
): Promise<{ texts: Map<string, string[]>; failed: Done['failed'] }> {
  const { task, prompt, first_row } = flags;
  const n = flags.numReturnSequences ?? 1;
  const failed: Done['failed'] = [];
  for (let good = batch; ;) {
    try {
      const texts = await generateCaptions(model, processor, good, {
        task,
        prompt,
        first_row,
        batch_size: flags.batchSize,
        max_new_tokens: flags.maxNewTokens,
        num_beams: flags.numBeams,
        generation: { ...generateOptions(flags), draft: flags.drafts },
        onText: flags.stream ? streamTo(ui) : undefined,
      });
      const of = good.map(({ source }, i) => [source, texts.slice(i * n, (i + 1) * n)] as const);
      return { texts: new Map(of), failed };
    } catch (error) {
      if (!(error instanceof DataError) || error.problems.length === 0) throw error;
      for (const { source, found } of error.problems)
        failed.push({ image: source, error: found.replace(`${resolve(source)}: `, '') });
      const bad = new Set(error.problems.map(({ source }) => source));
      good = good.filter(({ source }) => !bad.has(source));
    }
  }
}

/** Everything that the texts depend on but the backend, of which the kinds agree up to rounding. */
async function settingsOf({ precision, folders }: Opened, flags: DescribeFlags): Promise<Settings> {
  return {
    task: flags.task,
    prompt: flags.prompt ?? (flags.task === 'caption' ? '' : undefined),
    question: flags.question,
    model: await baseFingerprint(folders.model),
    ...(folders.adapter !== undefined && { adapter: await baseFingerprint(folders.adapter) }),
    max_new_tokens: flags.maxNewTokens,
    num_beams: flags.numBeams,
    ...generateOptions(flags),
    precision,
    image_orientation: flags.imageOrientation,
    alpha: flags.alpha,
  };
}

function checkOutput({ output, sidecars, overwrite, stream, part }: DescribeFlags): void {
  if (part !== undefined && output === undefined)
    throw new UsageError('--part: expected --output with it, which names the files of the parts');
  if (output !== undefined && sidecars) throw new UsageError('expected --output or --sidecars, found both');
  const file = output !== undefined || sidecars;
  if (file && stream)
    throw new UsageError('--stream prints the text; it cannot be written to a file as well');
  if (overwrite && !file) throw new UsageError('--overwrite: expected --output or --sidecars with it');
  if (output !== undefined && !/^\.(jsonl|ndjson)$/i.test(extname(output)))
    throw new UsageError(`--output: expected a file that ends in .jsonl, found ${output}`);
}

function checkStream(images: string[], flags: DescribeFlags, { json }: Ui): void {
  const severalTexts = images.length > 1 || flags.numBeams > 1 || (flags.numReturnSequences ?? 1) > 1;
  if (flags.stream && (severalTexts || json))
    throw new UsageError('--stream: expected one image and one text, without --num-beams and --json');
}

/** Prints the new part of a growing text; waits while its last character is incomplete. */
function streamTo(ui: Ui): (row: number, text: string) => void {
  let printed = '';
  return (_, text) => {
    if (!text.startsWith(printed) || text.endsWith('\uFFFD')) return;
    ui.write(text.slice(printed.length));
    printed = text;
  };
}
