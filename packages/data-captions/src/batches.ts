/** Batches of an epoch in a repeatable order, made ahead while the model computes. */
import { availableParallelism } from 'node:os';
import type { Augmentation, View } from './augment';
import { viewOf } from './augment';
import type { CollateOptions, TextOptions, TokenRows, TrainingRow } from './collate';
import { allRows, stackRows, textPair, trainingRow } from './collate';
import type { Dataset } from './dataset';
import type { Problem } from './errors';
import { DataError } from './errors';
import type { Example } from './example';
import type { Processor } from './processor';
import { checkSeed, permutation, randomWord } from './random';
import type { ReadyDataset } from './ready';
import { checkTask } from './ready';

export interface Batch extends TokenRows {
  /** Positions in dataset.examples. */
  indices: number[];
  examples: Example[];
  /** Normalised images [B, 3, H, W]; absent with `withPixels: false`. */
  pixel_values?: Float32Array;
  /** Shape of one image. */
  imageShape: [3, H: number, W: number];
  /** −100 where nothing is learned, [B, T]; of a `seq2seq` text model, target rows [B, U]. */
  labels: Int32Array;
}

/** How an epoch goes through a data set. */
export interface EpochOptions {
  batch_size: number;
  /**
   * Order = permutation(seed, epoch) of the examples, and one caption or answer of several drawn by (seed, epoch, example);
   * the same on every machine. Default true; false takes file order, first captions and commonest answers.
   */
  shuffle?: boolean;
  seed?: number;
  epoch?: number;
  /** The first batch to give: an epoch cut off after k batches goes on exactly with start_batch k. Default 0. */
  start_batch?: number;
  /** Leave out a last batch that is smaller. Default false. */
  drop_last?: boolean;
  /** Batches made ahead. Default 2. */
  prefetch?: number;
  /** Images read or decoded at the same time. Default: the number of cores, at least 8: most of the time they wait for the main thread. */
  concurrency?: number;
  /** Default true; false reads no images (their features are cached). */
  withPixels?: boolean;
  /** Random crops and flips, drawn by (seed, epoch, example); without it, images as they are. */
  augment?: Augmentation;
  /**
   * One of `count` processes that share each epoch: batches of batch_size · count rows are dealt out row by row, so a last,
   * smaller batch may leave some process an empty one. Default: all rows.
   */
  shard?: { index: number; count: number };
}

/** An epoch and the texts that it takes from the examples. */
export interface BatchOptions extends EpochOptions, TextOptions {}

/** Number of batches of an epoch, the same for every shard. */
export function countBatches(
  examples: number,
  { batch_size, drop_last, shard }: Pick<EpochOptions, 'batch_size' | 'drop_last' | 'shard'>,
): number {
  const whole = examples / (batch_size * (shard?.count ?? 1));
  return drop_last ? Math.floor(whole) : Math.ceil(whole);
}

/** The order in which an epoch visits `n` examples. */
export function epochOrder(n: number, options: Pick<EpochOptions, 'shuffle' | 'seed' | 'epoch'>): Int32Array {
  const { shuffle = true, seed = 0, epoch = 0 } = options;
  checkSeed(seed);
  // stream 0 chooses subsets (openDataset's limit); an epoch has its own stream
  return shuffle ? permutation(seed, epoch + 1, n) : Int32Array.from({ length: n }, (_, i) => i);
}

/**
 * The batches of one epoch, in order, whatever the prefetching. The texts of a `ReadyDataset` are not checked again.
 * @throws DataError before the first batch when examples lack what the task needs (all of them are listed), and at the batch
 * in which an image or a text is bad
 */
export function batches(
  dataset: ReadyDataset,
  processor: Processor,
  options: EpochOptions,
): AsyncGenerator<Batch, void, undefined>;
export function batches(
  dataset: Dataset,
  processor: Processor,
  options: BatchOptions,
): AsyncGenerator<Batch, void, undefined>;
export async function* batches(
  dataset: Dataset | ReadyDataset,
  processor: Processor,
  options: EpochOptions | BatchOptions,
): AsyncGenerator<Batch, void, undefined> {
  const { prefetch = 2, start_batch = 0, batch_size, shard = { index: 0, count: 1 } } = options;
  checkOptions(options);
  const { examples } = dataset;
  const rowsOf = rowMaker(dataset, processor, options);
  const order = epochOrder(examples.length, options);
  const count = countBatches(examples.length, options);
  const step = batch_size * shard.count;
  const run = limiter(options.concurrency ?? Math.max(8, availableParallelism()));

  const make = async (index: number): Promise<Batch> => {
    const dealt = order.subarray(index * step, (index + 1) * step);
    const indices = Array.from(dealt).filter((_, row) => row % shard.count === shard.index);
    const chosen = indices.map((i) => examples[i]);
    const tokens = stackRows(rowsOf(indices), processor);
    const { height, width } = processor.imageSize;
    const batch: Batch = { indices, examples: chosen, imageShape: [3, height, width], ...tokens };
    if (options.withPixels !== false) {
      const views = chosen.map((example, b) => view(example, indices[b], options));
      batch.pixel_values = await stackPixels(chosen, views, processor, run);
    }
    return batch;
  };

  const ahead: Promise<Batch>[] = [];
  for (let next = start_batch, given = start_batch; given < count; given++) {
    for (; next < count && next <= given + prefetch; next++) {
      const batch = make(next);
      batch.catch(() => {}); // thrown where it is awaited; a reader that stops early never awaits it
      ahead.push(batch);
    }
    yield await ahead.shift()!;
  }
}

/** Makes the token rows of examples, by their numbers; those of a `ReadyDataset` are there unless another text is drawn. */
function rowMaker(
  dataset: Dataset | ReadyDataset,
  processor: Processor,
  options: EpochOptions | BatchOptions,
): (indices: number[]) => TrainingRow[] {
  const { examples } = dataset;
  const ready = 'rows' in dataset ? dataset : undefined;
  const texts: TextOptions = ready?.texts ?? (options as BatchOptions);
  if (!ready) checkTask(dataset, texts);
  const rowOf = (i: number, problems: Problem[]) => {
    const drawn = textPair(examples[i], texts.task, texts.prompt, drawOf(i, options));
    const usual = ready && textPair(examples[i], texts.task, texts.prompt);
    if (usual?.target === drawn.target) return ready!.rows(i);
    return trainingRow(drawn, processor, texts, problems);
  };
  return (indices) => allRows((problems) => indices.map((i) => rowOf(i, problems)));
}

/** Chooses among the captions or answers of example number `index`: anew in each epoch, the same after a restart. */
function drawOf(
  index: number,
  { shuffle = true, seed = 0, epoch = 0 }: Pick<EpochOptions, 'shuffle' | 'seed' | 'epoch'>,
): number | undefined {
  return shuffle ? randomWord(seed, DRAWS - epoch, index) / 2 ** 32 : undefined;
}

function view(example: Example, index: number, { augment, seed = 0, epoch = 0 }: EpochOptions) {
  return augment && viewOf(augment, example, { seed, epoch, index });
}

/** Random streams are numbered down from here; those of the orders of epochs are numbered up from 1. */
const DRAWS = 0xfffffffe;

function checkOptions(options: EpochOptions & CollateOptions): void {
  for (const [name, value, least] of [
    ['batch_size', options.batch_size, 1],
    ['prefetch', options.prefetch ?? 0, 0],
    ['start_batch', options.start_batch ?? 0, 0],
    ['concurrency', options.concurrency ?? 1, 1],
    ['max_text_length', options.max_text_length ?? 1, 1],
  ] as const) {
    if (!(Number.isSafeInteger(value) && value >= least)) {
      throw new RangeError(`${name}: expected an integer of at least ${least}, found ${value}`);
    }
  }
}

/** Images of a batch, decoded side by side: [B, 3, H, W]. Every bad image of the batch is in the one error. */
async function stackPixels(
  examples: Example[],
  views: (View | undefined)[],
  processor: Processor,
  run: Limiter,
): Promise<Float32Array> {
  const { height, width } = processor.imageSize;
  const out = new Float32Array(examples.length * 3 * height * width);
  const results = await Promise.allSettled(
    examples.map((example, b) =>
      run(async () => out.set(await processor.pixels(example.image, views[b]), b * 3 * height * width)),
    ),
  );
  const failed = results.flatMap((r, b) =>
    r.status === 'rejected' ? [{ reason: r.reason as unknown, b }] : [],
  );
  if (failed.length === 0) return out;
  const unexpected = failed.find((f) => !(f.reason instanceof DataError));
  if (unexpected) throw unexpected.reason;
  const lines = failed.map((f) => `${examples[f.b].source}: ${(f.reason as DataError).message}`);
  throw new DataError(lines.join('\n'));
}

type Limiter = <T>(job: () => Promise<T>) => Promise<T>;

/** Runs jobs, at most `most` at a time, in the order in which they came. */
function limiter(most: number): Limiter {
  let running = 0;
  const waiting: (() => void)[] = [];
  return async (job) => {
    if (running >= most) await new Promise<void>((go) => waiting.push(go));
    else running++;
    try {
      return await job();
    } finally {
      const go = waiting.shift();
      if (go)
        go(); // the place passes on
      else running--;
    }
  };
}
