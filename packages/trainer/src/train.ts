/**
 * The training loop. It knows nothing of BLIP-2: the loss, the batches and everything that happens between steps
 * are functions passed in. Where the run stands is one number, the count of updates; epoch and place in the epoch
 * follow from it, so a run continues exactly where it stopped.
 */
import type { Locate, TrainParts } from './train-step';
import { trainStep } from './train-step';

export interface TrainOptions {
  totalSteps: number;
  gradient_accumulation_steps: number;
  seed: number;
  logging_steps: number;
  /** updates between evaluations and between checkpoints; both also happen after the last update */
  eval_steps: number;
  save_steps: number;
}

/** Where a run stands; a checkpoint holds it. */
export interface TrainState {
  /** updates made */
  step: number;
  /** update after which the last evaluation and the last checkpoint were made */
  evaluated: number;
  saved: number;
  /** the evaluation with the smallest score so far */
  best?: { step: number; score: number };
  /** sums since the last log row */
  window: { loss: number; steps: number; images: number; seconds: number };
  /** time spent in updates */
  seconds: number;
}

export interface LogRow {
  step: number;
  epoch: number;
  loss: number;
  learning_rate: number;
  grad_norm: number;
  images_per_second: number;
  seconds: number;
}

export interface Progress {
  step: number;
  totalSteps: number;
  epoch: number;
  loss: number;
  images_per_second: number;
  /** of the updates that are left; evaluations come on top */
  eta_seconds: number;
}

export interface TrainHooks<B> {
  signal?: AbortSignal;
  onProgress?(progress: Progress): void;
  onLog?(row: LogRow): void | Promise<void>;
  /** an evaluation; its answer is a score of which smaller is better */
  evaluate?(state: TrainState): Promise<number | undefined>;
  save?(state: TrainState): Promise<void>;
  locate?: Locate<B>;
}

/** Before the first update. */
export function initialState(): TrainState {
  return { step: 0, evaluated: 0, saved: 0, window: emptyWindow(), seconds: 0 };
}

const emptyWindow = () => ({ loss: 0, steps: 0, images: 0, seconds: 0 });

/** Updates in one epoch; a last, incomplete group of micro-batches still makes an update, as in transformers. */
export function stepsPerEpoch(batchesPerEpoch: number, accumulation: number): number {
  return Math.max(1, Math.ceil(batchesPerEpoch / accumulation));
}

/**
 * Trains until `totalSteps` or until the signal is raised; `state` is advanced in place.
 * @throws NonFiniteError before an update that would poison the weights
 */
export async function train<B>(
  parts: TrainParts<B>,
  options: TrainOptions,
  hooks: TrainHooks<B> = {},
  state: TrainState = initialState(),
): Promise<{ state: TrainState; interrupted: boolean }> {
  const perEpoch = stepsPerEpoch(parts.batchesPerEpoch, options.gradient_accumulation_steps);
  await betweenSteps(options, hooks, state);
  if (state.step >= options.totalSteps || hooks.signal?.aborted) return end(options, state);

  let begin = performance.now(); // waiting for the images counts
  for await (const group of stepGroups(parts, options, state.step)) {
    const lr = parts.schedule(state.step);
    const at = { seed: options.seed, step: state.step, lr };
    const { loss, norm } = await trainStep(parts, group, at, hooks.locate);
    state.step++;
    const images = group.reduce((sum, batch) => sum + parts.size(batch).images, 0);
    count(state, loss, images, (performance.now() - begin) / 1000);
    const epoch = state.step / perEpoch;
    hooks.onProgress?.({ ...pace(state, options.totalSteps), epoch, loss });
    if (due(state.step, options.logging_steps, options.totalSteps)) {
      await hooks.onLog?.(logRow(state, epoch, lr, norm));
      state.window = emptyWindow();
    }
    await betweenSteps(options, hooks, state);
    if (state.step >= options.totalSteps || hooks.signal?.aborted) break;
    begin = performance.now();
  }
  return end(options, state);
}

/** The micro-batches of each update, from update number `step` on, epoch after epoch. */
async function* stepGroups<B>(
  parts: TrainParts<B>,
  options: TrainOptions,
  step: number,
): AsyncGenerator<B[]> {
  const size = options.gradient_accumulation_steps;
  const perEpoch = stepsPerEpoch(parts.batchesPerEpoch, size);
  for (let epoch = Math.floor(step / perEpoch), first = (step % perEpoch) * size; ; epoch++, first = 0) {
    let group: B[] = [];
    for await (const batch of parts.batches(epoch, first)) {
      group.push(batch);
      if (group.length === size) {
        yield group;
        group = [];
      }
    }
    if (group.length > 0) yield group;
  }
}

/** What is due after an update. A raised signal skips the evaluation, which the resumed run then makes first. */
async function betweenSteps<B>(
  options: TrainOptions,
  hooks: TrainHooks<B>,
  state: TrainState,
): Promise<void> {
  await macrotask();
  const { step } = state;
  if (step === 0) return;
  let better = false;
  if (hooks.evaluate && state.evaluated < step && due(step, options.eval_steps, options.totalSteps)) {
    if (!hooks.signal?.aborted) {
      const score = await hooks.evaluate(state);
      state.evaluated = step;
      better = Number.isFinite(score) && (state.best === undefined || score! < state.best.score);
      if (better) state.best = { step, score: score! };
    }
  }
  const saveDue = state.saved < step && due(step, options.save_steps, options.totalSteps);
  if (better || saveDue || (hooks.signal?.aborted && state.saved < step)) {
    state.saved = step;
    await hooks.save?.(state);
  }
}

/** Lets signals and timers run: the work itself is synchronous on CPU backends. */
function macrotask(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function due(step: number, every: number, totalSteps: number): boolean {
  return step % every === 0 || step === totalSteps;
}

function count(state: TrainState, loss: number, images: number, seconds: number): void {
  state.window.loss += loss;
  state.window.steps += 1;
  state.window.images += images;
  state.window.seconds += seconds;
  state.seconds += seconds;
}

function pace(state: TrainState, totalSteps: number): Omit<Progress, 'epoch' | 'loss'> {
  const { images, seconds } = state.window;
  return {
    step: state.step,
    totalSteps,
    images_per_second: images / seconds,
    eta_seconds: (totalSteps - state.step) * (state.seconds / state.step),
  };
}

function logRow(state: TrainState, epoch: number, learning_rate: number, grad_norm: number): LogRow {
  const { loss, steps, images, seconds } = state.window;
  return {
    step: state.step,
    epoch,
    loss: loss / steps,
    learning_rate,
    grad_norm,
    images_per_second: images / seconds,
    seconds: state.seconds,
  };
}

function end(options: TrainOptions, state: TrainState): { state: TrainState; interrupted: boolean } {
  return { state, interrupted: state.step < options.totalSteps };
}
