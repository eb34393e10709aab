/** Batches of an epoch in a reproducible order, prefetched while the model computes. */
import type { Augmentation, View } from './augment';
import { viewOf } from './augment';
import type { CollateOptions, TextOptions, TokenRows, TrainingRow } from './collate';
import { allRows, stackRows, textPair, trainingRow } from './collate';
import type { Dataset } from './dataset';
import type { Problem } from './errors';
import { DataError } from './errors';
import type { Example } from './example';
import { imagesError } from './image-errors';
import type { Processor } from './processor';
import { firstOfEach, keptTogether, pictureNumbers } from './pictures';
import { checkSeed, permutation, randomWord } from './random';
import type { ReadyDataset } from './ready';
import { checkTask } from './ready';

export interface Batch extends TokenRows {
  /** Indices into dataset.examples. */
  indices: number[];
  examples: Example[];
  /** The picture of each row [B], among the P different ones of the batch. */
  pictures: Int32Array;
  /** Files of these pictures. */
  images: string[];
  /** Normalised images [P, 3, H, W]; absent with `withPixels: false`. */
  pixel_values?: Float32Array;
  /** Shape of one image. */
  imageShape: [3, H: number, W: number];
  /** Labels [B, T], −100 where nothing is learned; for a `seq2seq` text model, target rows [B, U]. */
  labels: Int32Array;
}

/** Batch size, order, prefetching and augmentation of an epoch. */
export interface EpochOptions {
  batch_size: number;
  /**
   * True (default): a random order, and a random choice among several captions or answers, both from seed and epoch and
   * the same on every machine. False: file order, first captions and commonest answers.
   */
  shuffle?: boolean;
  seed?: number;
  epoch?: number;
  /** Index of the first batch: an epoch interrupted after k batches is resumed with start_batch k. Default 0. */
  start_batch?: number;
  /** Leave out a last batch that is smaller. Default false. */
  drop_last?: boolean;
  /** Number of batches made ahead. Default 2. */
  prefetch?: number;
  /** Images decoded at the same time. Default: the processor's. */
  concurrency?: number;
  /** Default true; false reads no images, for cached features. */
  withPixels?: boolean;
  /** Random crops and flips from (seed, epoch, example), or with group_captions (seed, epoch, picture). Default: none. */
  augment?: Augmentation;
  /**
   * With shuffle, rows of one picture follow each other, so that most of them are in one batch and share what is computed of the
   * picture. Changes nothing if no picture has several rows. Default false.
   */
  group_captions?: boolean;
  /**
   * For one of `count` processes that share each epoch. Each gets a part of the rows of a batch of batch_size · count, in order; of a
   * smaller last batch it may be empty. Default: all rows.
   */
  shard?: { index: number; count: number };
}

/** Options of an epoch, and of the texts taken from the examples. */
export interface BatchOptions extends EpochOptions, TextOptions {}

/** Number of batches of an epoch, the same for every shard. */
export function countBatches(
  examples: number,
  { batch_size, drop_last, shard }: Pick<EpochOptions, 'batch_size' | 'drop_last' | 'shard'>,
): number {
  const whole = examples / (batch_size * (shard?.count ?? 1));
  return drop_last ? Math.floor(whole) : Math.ceil(whole);
}

/** The order of `n` examples in an epoch. */
export function epochOrder(n: number, options: Pick<EpochOptions, 'shuffle' | 'seed' | 'epoch'>): Int32Array {
  const { shuffle = true, seed = 0, epoch = 0 } = options;
  checkSeed(seed);
  // stream 0 is used by openDataset's limit
  return shuffle ? permutation(seed, epoch + 1, n) : Int32Array.from({ length: n }, (_, i) => i);
}

/**
 * The batches of one epoch, in order. The texts of a `ReadyDataset` are not checked again.
 * @throws DataError before the first batch, listing all examples without the texts that the task needs; and at a batch
 * with a bad image or text
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
  const order = orderOf(examples, options);
  const viewOf = viewer(examples, options);
  const count = countBatches(examples.length, options);
  const step = batch_size * shard.count;
  const run = limiter(options.concurrency ?? processor.concurrency ?? 8);

  const make = async (index: number): Promise<Batch> => {
    const all = order.subarray(index * step, (index + 1) * step);
    const [from, to] = [shard.index, shard.index + 1].map((i) => Math.floor((all.length * i) / shard.count));
    const indices = Array.from(all.subarray(from, to));
    const chosen = indices.map((i) => examples[i]);
    const views = indices.map(viewOf);
    const pictures = pictureNumbers(chosen, ({ image }, b) => `${views[b]?.name}\n${image}`);
    const first = firstOfEach(pictures);
    const images = first.map((b) => chosen[b].image);
    const { height, width } = processor.imageSize;
    const tokens = stackRows(rowsOf(indices), processor);
    const imageShape: Batch['imageShape'] = [3, height, width];
    const batch: Batch = { indices, examples: chosen, pictures, images, imageShape, ...tokens };
    if (options.withPixels !== false) {
      const rows = { examples: chosen, views: views.map((shown) => shown?.view), pictures };
      batch.pixel_values = await stackPixels(rows, processor, run);
    }
    return batch;
  };

  const ahead: Promise<Batch>[] = [];
  for (let next = start_batch, current = start_batch; current < count; current++) {
    for (; next < count && next <= current + prefetch; next++) {
      const batch = make(next);
      batch.catch(() => {}); // thrown at `await`, which is not reached if the caller stops early
      ahead.push(batch);
    }
    yield await ahead.shift()!;
  }
}

/** Returns a maker of token rows for example indices; it reuses rows of a `ReadyDataset` if the same text is drawn. */
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

/** Random number in 0 … 1 that chooses a caption or answer of example number `index` in an epoch. */
function drawOf(
  index: number,
  { shuffle = true, seed = 0, epoch = 0 }: Pick<EpochOptions, 'shuffle' | 'seed' | 'epoch'>,
): number | undefined {
  return shuffle ? randomWord(seed, DRAWS - epoch, index) / 2 ** 32 : undefined;
}

/** The order of the examples in an epoch. */
function orderOf(examples: readonly Example[], options: EpochOptions): Int32Array {
  const order = epochOrder(examples.length, options);
  const { shuffle = true, seed = 0, epoch = 0, group_captions = false } = options;
  if (!shuffle || !group_captions) return order;
  return keptTogether(order, picturesOf(examples), { seed, epoch });
}

const picturesOf = (examples: readonly Example[]) => pictureNumbers(examples, ({ image }) => image);

/** The view of each example; views of one picture with equal names are equal. Rows that are kept together have one, but for mirroring. */
function viewer(
  examples: readonly Example[],
  { augment, seed = 0, epoch = 0, group_captions }: EpochOptions,
): (index: number) => { view: View; name: string } | undefined {
  if (!augment) return () => undefined;
  const pictures = group_captions ? picturesOf(examples) : undefined;
  const first = pictures && firstOfEach(pictures);
  return (i) => {
    const index = first ? first[pictures![i]] : i;
    const view = viewOf(augment, examples[i], { seed, epoch, index });
    return { view, name: `${index} ${view.flip}` };
  };
}

/** Random stream of epoch 0, downwards; the orders of epochs use streams from 1 upwards. */
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

/** The pictures of rows, decoded in parallel: [P, 3, H, W]. @throws DataError that lists every row with a bad image */
async function stackPixels(
  { examples, views, pictures }: { examples: Example[]; views: (View | undefined)[]; pictures: Int32Array },
  processor: Processor,
  run: Limiter,
): Promise<Float32Array> {
  const { height, width } = processor.imageSize;
  const first = firstOfEach(pictures);
  const out = new Float32Array(first.length * 3 * height * width);
  const results = await Promise.allSettled(
    first.map((b, p) =>
      run(async () => out.set(await processor.pixels(examples[b].image, views[b]), p * 3 * height * width)),
    ),
  );
  const failed = results.flatMap((r, p) =>
    r.status === 'rejected' ? [{ reason: r.reason as unknown, p }] : [],
  );
  if (failed.length === 0) return out;
  const unexpected = failed.find((f) => !(f.reason instanceof DataError));
  if (unexpected) throw unexpected.reason;
  throw imagesError(
    failed.flatMap(({ p, reason }) =>
      examples.filter((_, b) => pictures[b] === p).map((example) => ({ example, error: reason })),
    ),
  );
}

type Limiter = <T>(job: () => Promise<T>) => Promise<T>;

/** Runs jobs in order, at most `most` at a time. */
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
      if (go) go();
      else running--;
    }
  };
}
