/**
 * Texts for the pictures of shards (WebDataset tar, Parquet): one file for each shard, in a folder.
 *   FOLDER/settings.json       what all texts depend on
 *   FOLDER/00012.jsonl         the rows of 00012.tar in its order, or 00012.parquet; there when the shard is finished
 *   FOLDER/.00012.done.json    what proves that it is complete: its shard, numbers of rows, SHA-256
 *   FOLDER/.00012.rows.jsonl   rows of an unfinished shard, which a later call continues
 * Any process may be killed at any time: a repeated call leaves out finished shards and the rows that are there.
 */
import { createHash, randomUUID } from 'node:crypto';
import { constants, existsSync, readdirSync } from 'node:fs';
import { copyFile, link, rm, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import {
  DataError,
  PICTURE_NAME,
  picturesBelow,
  problemLines,
  SHARD_NAME,
  shardPictures,
} from '@blip2/data-captions';
import type { ShardPicture } from '@blip2/data-captions';
import { makeFolders, readJsonFile, readRegular, writeFileAtomic } from '@blip2/weights/node';
import { withBase } from './base';
import type { Settings } from './captions-file';
import { KEYS, openCaptionsFile, requireSame } from './captions-file';
import { describeAll, namesOf, settingsOf } from './describe-all';
import type { DescribeFlags, Drafted } from './describe-all';
import { openDrafts } from './drafts';
import { Interrupted, UsageError } from './errors';
import { withInterrupt } from './interrupt';
import type { Opened } from './model';
import { openModel } from './model';
import { partOf, picturesOf } from './parts';
import { parquetOf } from './parquet-file';
import type { ShardRow } from './parquet-file';
import { matching, statOf } from './pictures';
import type { Ui } from './ui';
import type { Writer } from './writer';

/** What is known of a finished shard. */
export interface ShardRecord {
  shard: string;
  /** of the shard, so that another one of this name is noticed */
  shard_bytes: number;
  file: string;
  rows: number;
  /** rows with an error in place of a text */
  failed: number;
  sha256: string;
}

export const recordOf = (folder: string, shard: string) => join(folder, `.${stemOf(shard)}.done.json`);
const stemOf = (shard: string) => basename(shard, extname(shard));

/**
 * The shards that arguments name: files, quoted patterns, and folders that hold shards; undefined if they name none.
 * @throws UsageError for shards beside other things, or two with one name
 */
export async function findShards(args: string[]): Promise<string[] | undefined> {
  const found = await Promise.all(args.map(shardsAt));
  if (found.every((shards) => shards.length === 0)) return undefined;
  const other = args.find((_, i) => found[i].length === 0);
  if (other !== undefined)
    throw new UsageError(`expected shards (.tar, .parquet) only, or pictures only; ${other} has no shards`);
  const shards = [...new Set(found.flat())].sort();
  const stems = shards.map(stemOf);
  const twice = stems.find((stem, i) => stems.indexOf(stem) < i);
  if (twice !== undefined)
    throw new UsageError(`expected shards with different names, found two that are named ${twice}`);
  return shards;
}

async function shardsAt(arg: string): Promise<string[]> {
  const info = statOf(arg);
  // a table beside pictures describes these
  if (!info) {
    const isPattern = /[*?[{]/.test(arg) && (await matching(arg, PICTURE_NAME)).length === 0;
    return isPattern ? matching(arg, SHARD_NAME) : [];
  }
  if (!info.isDirectory()) return SHARD_NAME.test(arg) ? [arg] : [];
  const names = readdirSync(arg).filter((name) => SHARD_NAME.test(name));
  return names.length > 0 && picturesBelow(arg).length === 0 ? names.map((name) => join(arg, name)) : [];
}

/** @throws UsageError, before anything is loaded, for options that shards do not have */
export async function describeShards(all: string[], given: DescribeFlags, ui: Ui): Promise<void> {
  const folder = checkFlags(given);
  const part = given.part === undefined ? undefined : partOf(given.part, ui.io.env);
  const shards = part ? picturesOf(all, part) : all;
  const flags = await withBase(given, ui);
  const opened = await openModel(flags, ui);
  const work: Shards = {
    ...flags,
    drafts: await openDrafts(flags, opened, ui),
    folder,
    settings: { ...(await settingsOf(opened, flags)), format: flags.format ?? 'jsonl' },
  };
  await claimFolder(work);
  const records: ShardRecord[] = [];
  await withInterrupt(
    ui,
    'stopping after this batch (Ctrl-C again stops at once, without it)',
    async (signal) => {
      for (const [i, shard] of shards.entries()) {
        const record =
          (await finished(folder, shard)) ?? (await describeShard(shard, opened, { ...work, signal }, ui));
        if (!record)
          throw new Interrupted(
            `stopped: ${records.length} of ${shards.length} shards are finished in ${folder}; the same command continues`,
          );
        records.push(record);
        if (!ui.json) ui.log(`${i + 1} of ${shards.length} shards: ${record.file}, ${countsOf(record)}`);
      }
    },
  );
  const [rows, failed] = [sumOf(records, 'rows'), sumOf(records, 'failed')];
  ui.result(
    { ...namesOf(opened, flags), output: folder, shards: records.length, rows, failed },
    `${folder}: ${records.length} shards, ${countsOf({ rows, failed })}`,
  );
}

interface Shards extends Drafted {
  folder: string;
  settings: Settings;
}

const countsOf = ({ rows, failed }: Pick<ShardRecord, 'rows' | 'failed'>) =>
  `${rows} rows${failed > 0 ? `, ${failed} of them with an error in place of a text` : ''}`;
const sumOf = (records: ShardRecord[], name: 'rows' | 'failed') =>
  records.reduce((sum, record) => sum + record[name], 0);

function checkFlags({
  output,
  stream,
  sidecars,
  overwrite,
  format,
  numReturnSequences,
}: DescribeFlags): string {
  if (stream || sidecars) throw new UsageError('--stream and --sidecars: expected pictures, found shards');
  if (output === undefined)
    throw new UsageError('expected --output with shards, a folder for a file of texts of each shard');
  if (overwrite)
    throw new UsageError(
      `--overwrite: cannot be used with shards; to make all their texts again, delete ${output} first`,
    );
  if (SHARD_NAME.test(output) || /\.(jsonl|ndjson)$/i.test(output))
    throw new UsageError(
      `--output: expected a folder, because each shard has a file of texts, found ${output}`,
    );
  if (format === 'parquet' && (numReturnSequences ?? 1) > 1)
    throw new UsageError('--num-return-sequences: expected --format jsonl with it, found parquet');
  return output;
}

/** All processes that write into the folder must have the same settings. */
async function claimFolder({ folder, settings }: Shards): Promise<void> {
  await makeFolders(folder);
  const record = join(folder, 'settings.json');
  if (!existsSync(record)) await createOnce(record, JSON.stringify(settings, null, 2) + '\n');
  await requireSame(
    folder,
    record,
    settings,
    'Set these back, choose another --output, or delete the folder.',
  );
}

/** Makes a file that is complete when it appears, unless another process has made it meanwhile. */
async function createOnce(file: string, text: string): Promise<void> {
  const draft = `${file}.${randomUUID()}.tmp`;
  try {
    await writeFileAtomic(draft, text);
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') throw error;
      return copyFile(draft, file, constants.COPYFILE_EXCL); // a file system without hard links
    });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  } finally {
    await rm(draft, { force: true });
  }
}

/** The record of a shard whose file is there. @throws Error if the shard is not the one that it was made from */
export async function finished(folder: string, shard: string): Promise<ShardRecord | undefined> {
  const path = recordOf(folder, shard);
  if (!existsSync(path)) return undefined;
  const record = (await readJsonFile(path)) as ShardRecord;
  const { size } = await stat(shard);
  if (size !== record.shard_bytes)
    throw new Error(
      `${shard}: expected ${record.shard_bytes} bytes, as when ${join(folder, record.file)} was made from it, found ${size}; ` +
        `if it is another shard, choose another --output, or delete ${path}`,
    );
  return existsSync(join(folder, record.file)) ? record : undefined;
}

type Stoppable = Shards & { signal: AbortSignal };

/** Makes the file of a shard, unless another process has made it meanwhile. @returns undefined after an abort */
async function describeShard(
  shard: string,
  opened: Opened,
  work: Stoppable,
  ui: Ui,
): Promise<ShardRecord | undefined> {
  const { folder, settings } = work;
  const { size: shard_bytes } = await stat(shard);
  const { pictures, problems } = await shardPictures(shard);
  if (problems.length > 0)
    ui.log(
      `${shard}: ${problems.length} samples without a picture are left out:\n${problemLines(problems, 3).join('\n')}`,
    );
  const unfinished = join(folder, `.${stemOf(shard)}.rows.jsonl`);
  const writer = await openCaptionsFile(unfinished, { settings, naming: KEYS, say: (text) => ui.log(text) });
  let record: ShardRecord | undefined;
  try {
    record = await finished(folder, shard);
    if (!record) {
      await rm(recordOf(folder, shard), { force: true }); // of a file that was deleted
      const made = await describePictures(shard, pictures, opened, { ...work, writer, unfinished }, ui);
      record = made && { shard: basename(shard), shard_bytes, ...made };
      if (record) await writeFileAtomic(recordOf(folder, shard), JSON.stringify(record) + '\n');
    }
    return record;
  } finally {
    await (record ? writer.discard() : writer.close());
  }
}

async function describePictures(
  shard: string,
  pictures: ShardPicture[],
  opened: Opened,
  work: Stoppable & { writer: Writer; unfinished: string },
  ui: Ui,
): Promise<Made | undefined> {
  const { signal, writer, unfinished } = work;
  const named = pictures.map(({ key, image }) => ({ name: key, image }));
  const skip = new Set(pictures.map(({ key }) => key).filter((key) => writer.has(key)));
  await describeAll(named, opened, { ...work, shard, skip, onRows: (rows) => writer.write(rows) }, ui);
  return signal.aborted ? undefined : finish(unfinished, pictures, work, shard);
}

type Made = Pick<ShardRecord, 'file' | 'rows' | 'failed' | 'sha256'>;

/** Writes the rows in the order of the shard. @throws DataError unless every picture has one row */
async function finish(
  unfinished: string,
  pictures: ShardPicture[],
  { folder, key, format = 'jsonl' }: Shards,
  shard: string,
): Promise<Made> {
  const lines = (await readRegular(unfinished)).toString('utf8').split('\n').filter(Boolean);
  const rows = new Map(lines.map((line) => [(JSON.parse(line) as ShardRow).key, line]));
  const wanted = pictures.map((picture) => rows.get(picture.key));
  if (rows.size !== lines.length || rows.size !== pictures.length || wanted.includes(undefined))
    throw new DataError(
      `${unfinished}: expected one row for each of ${pictures.length} pictures of ${shard}, found ${lines.length}; ` +
        'if the shard was changed meanwhile, delete this file',
    );
  const file = `${stemOf(shard)}.${format}`;
  const ordered = (wanted as string[]).map((line) => JSON.parse(line) as ShardRow);
  const content =
    format === 'parquet'
      ? parquetOf(ordered, key)
      : Buffer.from((wanted as string[]).map((line) => `${line}\n`).join(''));
  await writeFileAtomic(join(folder, file), content);
  const failed = ordered.filter(({ error }) => error !== undefined).length;
  return { file, rows: ordered.length, failed, sha256: createHash('sha256').update(content).digest('hex') };
}
