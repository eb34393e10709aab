/** Generates a text for each picture and prints them, or writes them to files. Used by `caption` and `answer`. */
import { extname } from 'node:path';
import { withBase } from './base';
import { openCaptionsFile } from './captions-file';
import { describeAll, namesOf, pictureAt, settingsOf } from './describe-all';
import type { DescribeFlags, Done, Drafted } from './describe-all';
import { openDrafts } from './drafts';
import { Interrupted, Printed, UsageError } from './errors';
import { withInterrupt } from './interrupt';
import type { Opened } from './model';
import { openModel } from './model';
import { fileOf, keepFailed, partOf, picturesOf } from './parts';
import { findPictures } from './pictures';
import { paint } from './printable';
import { describeShards, findShards } from './shards';
import { openSidecars } from './sidecars';
import type { Ui } from './ui';
import type { Texts, Writer } from './writer';

/** @throws Error, before anything is loaded, if a picture or folder is missing; Printed if pictures could not be read */
export async function describeImages(args: string[], given: DescribeFlags, ui: Ui): Promise<void> {
  const shards = await findShards(args);
  if (shards) return describeShards(shards, given, ui);
  checkOutput(given);
  const all = await findPictures(args, ui.io);
  checkStream(all, given, ui);
  const part = given.part === undefined ? undefined : partOf(given.part, ui.io.env);
  const images = part ? picturesOf(all, part) : all;
  const own = part ? { ...given, output: fileOf(given.output!, part) } : given;
  const flags = await withBase(own, ui);
  const opened = await openModel(flags, ui);
  const drafts = await openDrafts(flags, opened, ui);
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

/** Prints each batch when it is done. */
async function print(images: string[], opened: Opened, flags: Drafted, ui: Ui): Promise<void> {
  const onRows = (rows: Texts[]) => {
    if (ui.json || flags.stream || rows.length === 0) return;
    const lines = rows.flatMap(({ image, texts }) =>
      images.length === 1 ? texts : texts.map((text) => `${paint.dim(`${image}:`)} ${text}`),
    );
    ui.result(undefined, lines.join('\n'));
  };
  const { rows, failed } = await describeAll(images.map(pictureAt), opened, { ...flags, onRows }, ui);
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
  if (flags.part !== undefined) await keepFailed(flags.output!, []); // they are tried again
  const stopping = 'stopping after this batch (Ctrl-C again stops at once, without it)';
  const { rows, failed, stopped } = await withInterrupt(ui, stopping, async (signal) => {
    const done = await describeAll(
      images.map(pictureAt),
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
  const again = flags.part === undefined ? failed : await keepFailed(flags.output!, failed);
  const listed = failed.length - again.length;
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
      ...(listed > 0
        ? [`${listed} of ${images.length} pictures cannot be read, which data join will list`]
        : []),
    ].join(', '),
  );
  refuseFailed(again, images.length);
}

/** @throws Printed for pictures that could not be read */
function refuseFailed({ length }: Done['failed'], total: number): void {
  if (length > 0)
    throw new Printed(
      `${length} of ${total} pictures cannot be read${total > 1 ? '; they are named above' : ''}`,
    );
}

function checkOutput({ output, sidecars, overwrite, stream, part, format }: DescribeFlags): void {
  if (format !== undefined)
    throw new UsageError('--format: expected shards (.tar, .parquet) with it, found pictures');
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
