/** Texts for many pictures, in batches, whether they are files or in shards. */
import { resolve } from 'node:path';
import type { GenerateOptions } from '@blip2/blip2';
import { DataError, mayPass } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import { baseFingerprint, generateCaptions } from '@blip2/trainer';
import type { Settings } from './captions-file';
import type { ModelFlags, Opened } from './model';
import { generateOptions } from './options';
import type { DecodingFlags, GenerationFlags, OutputFlags } from './options';
import { paint } from './printable';
import type { Ui } from './ui';
import { seconds } from './ui';
import type { Texts } from './writer';

export interface DescribeFlags extends ModelFlags, GenerationFlags, DecodingFlags, OutputFlags {
  task: 'caption' | 'vqa';
  /** the key of a text in the JSON document and in rows */
  key: 'caption' | 'answer';
  prompt?: string;
  question?: string;
  /** a data set whose captions suggest the next tokens */
  draft?: string;
}

/** A picture, and its name in rows: the path as it was written, or the key in a shard. */
export interface Picture {
  name: string;
  /** as `readImage` takes it */
  image: string;
}

export const pictureAt = (path: string): Picture => ({ name: path, image: resolve(path) });

export interface Done {
  rows: Texts[];
  failed: { image: string; error: string }[];
}

export interface Drafted extends DescribeFlags {
  drafts?: GenerateOptions['draft'];
}

export const namesOf = ({ backend }: Opened, { model, adapter }: DescribeFlags) => ({
  model,
  ...(adapter !== undefined && { adapter }),
  backend,
});

export interface Work extends Drafted {
  skip?: ReadonlySet<string>;
  /** checked between batches */
  signal?: AbortSignal;
  /** the shard, for messages */
  shard?: string;
  /** the rows of a batch; those of a shard include the pictures that cannot be read */
  onRows: (rows: Texts[]) => Promise<void> | void;
}

/** The texts of all pictures that can be read, in batches. The others are printed and returned with their errors. */
export async function describeAll(pictures: Picture[], opened: Opened, work: Work, ui: Ui): Promise<Done> {
  const { skip, signal, batchSize, shard, onRows } = work;
  const todo = pictures.filter(({ name }) => !skip?.has(name));
  const done: Done = { rows: [], failed: [] };
  const begin = performance.now();
  for (let from = 0; from < todo.length && !signal?.aborted; from += batchSize) {
    const batch = todo.slice(from, from + batchSize);
    const first_row = (skip?.size ?? 0) + from;
    const { rows, failed } = await batchRows(batch, opened, { ...work, first_row }, ui);
    for (const { image, error } of failed)
      ui.log(`${paint.red('cannot be read:')} ${shard === undefined ? '' : `${shard}:`}${image}: ${error}`);
    if (shard !== undefined) refuseLost(shard, failed);
    await onRows(shard === undefined ? rows : [...rows, ...failed.map((one) => failedRow(one, work))]);
    done.rows.push(...rows);
    done.failed.push(...failed);
    const count = from + batch.length;
    if (todo.length > batchSize)
      ui.progress('pictures', progressLine(count, todo.length, begin), count === todo.length);
  }
  return done;
}

/** @throws Error if the disk, network or memory failed, not a picture: its rows would never be made again */
function refuseLost(shard: string, failed: Done['failed']): void {
  const lost = failed.find(({ error }) => mayPass(error));
  if (lost)
    throw new Error(
      `${shard}: ${lost.error}; the rows before it are kept, and the same command continues with it`,
    );
}

const failedRow = (failed: Done['failed'][number], { key }: Work): Texts => ({ ...failed, key, texts: [] });

async function batchRows(
  batch: Picture[],
  opened: Opened,
  work: Work & { first_row: number },
  ui: Ui,
): Promise<Done> {
  const { question, key } = work;
  const examples = batch.map(({ name, image }): Example => ({ image, question, fields: {}, source: name }));
  const { texts, failed } = await batchTexts(examples, opened, work, ui);
  return { rows: [...texts].map(([image, some]) => ({ image, question, key, texts: some })), failed };
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
      for (const { source, found } of error.problems) {
        const place = batch.find((example) => example.source === source)?.image;
        failed.push({ image: source, error: found.replace(`${place}: `, '') });
      }
      const bad = new Set(error.problems.map(({ source }) => source));
      good = good.filter(({ source }) => !bad.has(source));
    }
  }
}

/** Everything that the texts depend on but the backend, of which the kinds agree up to rounding. */
export async function settingsOf({ precision, folders }: Opened, flags: DescribeFlags): Promise<Settings> {
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

/** Prints the new part of a growing text; waits while its last character is incomplete. */
function streamTo(ui: Ui): (row: number, text: string) => void {
  let printed = '';
  return (_, text) => {
    if (!text.startsWith(printed) || text.endsWith('\uFFFD')) return;
    ui.write(text.slice(printed.length));
    printed = text;
  };
}
