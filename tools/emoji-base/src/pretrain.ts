// The pretraining run: data, tokenizer, loop, log, checkpoints, and the finished model folder.
import { appendFile, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { textIds } from '@blip2/blip2';
import { saveModel } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { countParameters, fold, rngKey } from '@blip2/nn';
import { itemsOf, loadBaseData } from './base-data';
import type { BaseData } from './base-data';
import { makeBatches } from './batches';
import type { BaseBatch } from './batches';
import { modelCard } from './card';
import { evaluate } from './evaluate';
import type { Scores } from './evaluate';
import { createLearner, loadState, saveState, update } from './learner';
import type { Learner, Progress, StepReport } from './learner';
import { writeModelFiles } from './model-files';
import type { PretrainOptions } from './options';
import { learningRate, spent } from './schedule';
import { tokenise, trainTokenizer } from './texts';

interface Run {
  options: PretrainOptions;
  data: BaseData;
  processor: Processor;
  learner: Learner;
  batches: (step: number) => BaseBatch;
  progress: Progress;
}

/** Trains until the budget is used up or the signal is aborted; returns whether the model folder was written. */
export async function pretrain(options: PretrainOptions): Promise<boolean> {
  const run = await prepare(options);
  const finished = await loop(run);
  await saveState(run.learner, run.progress, options.run);
  if (!finished) {
    options.note(`stopped after ${run.progress.images} images; the same command with --resume goes on`);
    return false;
  }
  const scores = await look(run, [
    'validation',
    'heldOut',
    'trained',
    ...(options.test ? (['test'] as const) : []),
  ]);
  await exportModel(run, options.output, scores);
  options.note(`wrote ${options.output}`);
  return true;
}

async function prepare(options: PretrainOptions): Promise<Run> {
  const { run, seed, batch, lines, note, resume } = options;
  if (!resume) await rm(join(run, LOG), { force: true });
  await mkdir(run, { recursive: true });
  const data = await loadBaseData(options.cache, note);
  note(`${itemsOf(data, 'base').length} training images; left out: ${JSON.stringify(data.left)}`);
  await writeModelFiles(modelFolder(run), trainTokenizer(data));
  const learner = createLearner(seed);
  const processor = await loadProcessor(modelFolder(run), textIds(learner.model.config));
  const progress = resume ? await loadState(learner, run) : { step: 0, images: 0, seconds: 0 };
  const texts = tokenise(data, processor.tokenizer.encode);
  const sizes = {
    images: batch,
    lines,
    maxPositions: learner.model.config.text_config.max_position_embeddings!,
  };
  const batches = makeBatches(data, texts, sizes, fold(rngKey(seed), 'batches'));
  note(`${countParameters(learner.model.params)} parameters; at image ${progress.images}`);
  return { options, data, processor, learner, batches, progress };
}

/** Returns true if the budget is used up, false if the signal was aborted first. */
async function loop(run: Run): Promise<boolean> {
  const { options, learner, progress } = run;
  const means = new Means();
  let nextLook = progress.seconds + 60 * options.evalMinutes;
  while (!spent(options.budget, progress)) {
    if (options.signal?.aborted) return false;
    const start = performance.now();
    const lr = learningRate(options.lr, options.budget, progress);
    const report = await update(learner, run.batches(progress.step), lr);
    progress.step++;
    progress.images += options.batch;
    progress.seconds += (performance.now() - start) / 1000;
    means.add(report, options.batch, (performance.now() - start) / 1000);
    if (progress.step % options.logEvery === 0) await logStep(run, lr, means.take());
    if (progress.seconds >= nextLook) {
      nextLook = progress.seconds + 60 * options.evalMinutes;
      await saveState(learner, progress, options.run);
      await exportModel(run, modelFolder(options.run), await look(run, ['validation', 'heldOut']));
    }
    await setImmediate(); // lets the Ctrl-C handler run
  }
  return true;
}

const LOG = 'log.jsonl';
const modelFolder = (run: string) => join(run, 'model');

async function append(run: Run, line: object): Promise<void> {
  await appendFile(join(run.options.run, LOG), JSON.stringify(line) + '\n');
}

async function logStep(run: Run, lr: number, means: Record<string, number>): Promise<void> {
  const { step, images, seconds } = run.progress;
  const losses = Object.entries(means).map(([name, value]) => [name, Number(value.toPrecision(4))]);
  const line = {
    step,
    images,
    seconds: Math.round(seconds),
    lr: Number(lr.toPrecision(3)),
    ...Object.fromEntries(losses),
  };
  await append(run, { kind: 'train', ...line });
  const text = Object.entries(line).map(([name, value]) => `${name} ${value}`);
  run.options.note(text.join('  '));
}

/** Evaluates, logs and prints. Test images are evaluated only if requested. */
async function look(run: Run, sets: readonly (keyof Scores)[]): Promise<Scores> {
  const { data, learner, processor, progress } = run;
  const every = (items: number[], count: number) =>
    items.filter((_, i) => i % Math.ceil(items.length / count) === 0);
  const items: Record<keyof Scores, () => number[]> = {
    validation: () => itemsOf(data, 'validation'),
    heldOut: () => every(itemsOf(data, 'held-out'), 80),
    trained: () =>
      every(
        itemsOf(data, 'base').filter((i) => data.items[i].group !== 'people-body'),
        120,
      ),
    test: () => itemsOf(data, 'test'),
  };
  const scores: Scores = {};
  for (const name of sets) {
    const found = await evaluate(learner.model, data, items[name](), processor.decode);
    scores[name] = found;
    await append(run, {
      kind: 'evaluation',
      set: name,
      step: progress.step,
      images: progress.images,
      ...found,
    });
    const parts = (['exact', 'subject', 'activity', 'tone'] as const).filter(
      (part) => found[part] !== undefined,
    );
    run.options.note(`  ${name}: ${parts.map((part) => `${part} ${found[part]!.toFixed(3)}`).join('  ')}`);
    const samples = found.samples.map(({ label, said }) => `    "${label}" → "${said}"`);
    run.options.note(samples.slice(0, 4).join('\n'));
  }
  return scores;
}

/** Saves the model in bfloat16 with all files that transformers needs. */
async function exportModel(run: Run, folder: string, scores: Scores): Promise<void> {
  await mkdir(folder, { recursive: true });
  await saveModel(run.learner.model, folder, { dtype: 'BF16', copyFrom: modelFolder(run.options.run) });
  const parameters = countParameters(run.learner.model.params);
  await writeFile(join(folder, 'README.md'), modelCard({ ...run, parameters, scores }));
}

/** Means over the steps since the last log line, and images per second. */
class Means {
  private sums: Partial<StepReport> = {};
  private count = 0;
  private images = 0;
  private seconds = 0;

  add(report: StepReport, images: number, seconds: number): void {
    for (const [name, value] of Object.entries(report) as [keyof StepReport, number][])
      this.sums[name] = (this.sums[name] ?? 0) + value;
    this.count++;
    this.images += images;
    this.seconds += seconds;
  }

  take(): Record<string, number> {
    const means = Object.fromEntries(
      Object.entries(this.sums).map(([name, sum]) => [name, sum / this.count]),
    );
    const rate = this.images / this.seconds;
    [this.sums, this.count, this.images, this.seconds] = [{}, 0, 0, 0];
    return { ...means, 'img/s': rate };
  }
}
