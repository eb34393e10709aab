/** Batches of an epoch in a repeatable order, made ahead while the model computes. */
import { availableParallelism } from 'node:os';
import type { Augmentation, View } from './augment';
import { viewOf } from './augment';
import type { CollateOptions, Task, TokenRows } from './collate';
import { collate, textPair } from './collate';
import type { Dataset } from './dataset';
import type { Problem } from './errors';
import { DataError } from './errors';
import type { Example } from './example';
import type { Processor } from './processor';
import { checkSeed, permutation, randomWord } from './random';

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

export interface BatchOptions extends CollateOptions {
  batch_size: number;
  task: Task;
  /** Put before every caption; for `vqa` the template, with {} for the question. */
  prompt?: string;
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
}

/** Number of batches of an epoch. */
export function countBatches(
  examples: number,
  options: Pick<BatchOptions, 'batch_size' | 'drop_last'>,
): number {
  const whole = examples / options.batch_size;
  return options.drop_last ? Math.floor(whole) : Math.ceil(whole);
}

/** The order in which an epoch visits `n` examples. */
export function epochOrder(n: number, options: Pick<BatchOptions, 'shuffle' | 'seed' | 'epoch'>): Int32Array {
  const { shuffle = true, seed = 0, epoch = 0 } = options;
  checkSeed(seed);
  // stream 0 chooses subsets (openDataset's limit); an epoch has its own stream
  return shuffle ? permutation(seed, epoch + 1, n) : Int32Array.from({ length: n }, (_, i) => i);
}

/**
 * The batches of one epoch, in order, whatever the prefetching. Throws DataError before the first batch when examples
 * lack what the task needs (all of them are listed), and at the batch in which an image or a text is bad.
 */
export async function* batches(
  dataset: Dataset,
  processor: Processor,
  options: BatchOptions,
): AsyncGenerator<Batch, void, undefined> {
  const { prefetch = 2, start_batch = 0, batch_size } = options;
  checkOptions(options);
  const { examples } = dataset;
  checkTask(dataset, options);
  const order = epochOrder(examples.length, options);
  const count = countBatches(examples.length, options);
  const run = limiter(options.concurrency ?? Math.max(8, availableParallelism()));

  const make = async (index: number): Promise<Batch> => {
    const indices = Array.from(order.subarray(index * batch_size, (index + 1) * batch_size));
    const chosen = indices.map((i) => examples[i]);
    const tokens = collate(
      chosen.map((e, b) => textPair(e, options.task, options.prompt, drawOf(indices[b], options))),
      processor,
      options,
    );
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

/** Chooses among the captions or answers of example number `index`: anew in each epoch, the same after a restart. */
function drawOf(
  index: number,
  { shuffle = true, seed = 0, epoch = 0 }: Pick<BatchOptions, 'shuffle' | 'seed' | 'epoch'>,
): number | undefined {
  return shuffle ? randomWord(seed, DRAWS - epoch, index) / 2 ** 32 : undefined;
}

function view(example: Example, index: number, { augment, seed = 0, epoch = 0 }: BatchOptions) {
  return augment && viewOf(augment, example, { seed, epoch, index });
}

/** Streams from the top down, where the orders of epochs never come. */
const DRAWS = 0xfffffffe;

function checkOptions(options: BatchOptions): void {
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

/** Throws one DataError that lists every example which lacks what the task needs. */
export function checkTask(dataset: Dataset, { task, prompt }: Pick<BatchOptions, 'task' | 'prompt'>): void {
  const problems: Problem[] = [];
  for (const example of dataset.examples) {
    try {
      textPair(example, task, prompt);
    } catch (error) {
      if (!(error instanceof DataError) || error.problems.length === 0) throw error;
      problems.push(...error.problems);
    }
  }
  if (problems.length > 0) {
    const what = `${problems.length} of ${dataset.examples.length} examples do not fit the task "${task}"`;
    throw new DataError(`${dataset.path}: ${what}`, problems);
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
