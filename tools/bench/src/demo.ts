/** The demo job's steps, ours and PyTorch + PEFT's: the recipe's model, images, texts and order. */
import { join } from 'node:path';
import { textIds } from '@blip2/blip2';
import { loadConfig } from '@blip2/blip2/node';
import { batches, loadProcessor, openDataset } from '@blip2/data-captions';
import type { Precision } from '@blip2/nn';
import { parseConfig, readConfigFile } from '@blip2/trainer';
import type { FitConfig } from '@blip2/trainer';
import { compareLosses } from './check';
import { machineLine } from './machine';
import { takeTurns } from './rows';
import type { Competitor, Measured } from './rows';
import { stepOf } from './sides';
import type { SideName, Sides, StepRun } from './sides';
import { STEP_PRESETS } from './step';
import type { Features, StepReport } from './step';
import { digits, gigabytes, markdownTable, median, times } from './table';
import { writeWork } from './work';
import type { WorkBatch } from './work';

export interface DemoOptions {
  dir: string;
  /** A recipe of `blip2 fit` with a preset that `step` knows. */
  config: string;
  /** Timed steps, after one that warms up. */
  steps: number;
  rounds: number;
}

type Variant = [side: SideName, precision: Precision, features: Features];
const VARIANTS: readonly Variant[] = [
  ['pytorch', 'float32', 'none'],
  ['pytorch', 'bfloat16', 'none'],
  ['pytorch', 'float32', 'ready'],
  ['pytorch', 'bfloat16', 'ready'],
  ['ours', 'float32', 'none'],
  ['ours', 'float32', 'ready'],
  ['ours', 'bfloat16', 'ready'],
];

/** Prints the table. */
export async function demoTables(sides: Sides, o: DemoOptions): Promise<void> {
  const config = parseConfig(await readConfigFile(o.config), o.config);
  const preset = STEP_PRESETS.find((name) => name === config.preset);
  if (!preset)
    throw new Error(`${o.config}: expected the preset ${STEP_PRESETS.join(' or ')}, found ${config.preset}`);
  const work = join(o.dir, 'demo.safetensors');
  await writeWork(work, await firstBatches(config, o.steps + 1));
  const { model, learning_rate: lr } = config;
  const competitors = VARIANTS.map(([side, precision, features]): Competitor<StepReport> => {
    const run = { model, work, preset, steps: o.steps + 1, features, precision, lr };
    return { label: labelOf(side, precision, features), measure: () => stepOf(sides, side, run) };
  });
  await checkFirstLoss(sides, { model, work, preset, lr });
  const measured = await takeTurns(competitors, o.rounds);
  const rates = measured.map((m) => ratesOf(m, config.num_train_epochs));
  console.log(
    `${await machineLine(sides)} ${o.config}: ${o.steps} steps of ${config.per_device_train_batch_size}.`,
  );
  console.log(`\n### The demo job\n\n${demoTable(rates)}`);
}

/** Fresh adapters change nothing, so the first losses are equal if both sides have the same images and texts. */
async function checkFirstLoss(
  sides: Sides,
  job: Pick<StepRun, 'model' | 'work' | 'preset' | 'lr'>,
): Promise<void> {
  const run = {
    ...job,
    steps: 1,
    features: 'none',
    precision: 'float32',
    noDropout: true,
  } as const;
  const [ours, baseline] = [await stepOf(sides, 'ours', run), await stepOf(sides, 'pytorch', run)];
  const gap = compareLosses('the first step of the demo', ours.losses, baseline.losses);
  if (ours.trainable !== baseline.trainable)
    throw new Error(`${job.preset}: ours trains ${ours.trainable} numbers, PyTorch ${baseline.trainable}`);
  sides.say(`the demo's first loss: ${digits(ours.losses[0])}, PyTorch's within ${gap.toExponential(1)}`);
}

function labelOf(side: SideName, precision: Precision, features: Features): string {
  const how = { none: 'all parts at each step', ready: 'features made once' }[features];
  return `${side === 'ours' ? 'ours' : 'PyTorch'} ${precision}, ${how}`;
}

/** The recipe's first batches of its first epoch; both sides decode the images themselves. */
async function firstBatches(config: FitConfig, count: number): Promise<WorkBatch[]> {
  const processor = await loadProcessor(config.model, textIds(await loadConfig(config.model)));
  const { task, prompt, seed, train_limit, per_device_train_batch_size: batch_size } = config;
  const dataset = await openDataset(config.data, { limit: train_limit, seed }).catch((error: Error) => {
    throw new Error(`${error.message}\nThe demo's pictures are made by: npx nx run emoji-captions:render`);
  });
  const found: WorkBatch[] = [];
  const all = batches(dataset, processor, {
    task,
    prompt,
    seed,
    batch_size,
    shuffle: true,
    withPixels: false,
  });
  for await (const { input_ids, attention_mask, labels, shape, examples } of all) {
    const images = examples.map(({ image }) => image);
    found.push({ input_ids, attention_mask, labels, shape, images, side: processor.imageSize.height });
    if (found.length === count) break;
  }
  return found;
}

export interface Rates {
  label: string;
  baseline: boolean;
  /** The outputs of the frozen parts are computed once. */
  given: boolean;
  /** Images per second of the steps alone. */
  steps: number;
  /** Milliseconds per image of the work that is done once. */
  once: number;
  /** Images per second over all epochs, including the work that is done once. */
  job: number;
  peak_rss_bytes: number;
}

/** Features were computed for every image of the work file, including those of the warm-up step. */
export function ratesOf(m: Measured<StepReport>, epochs: number): Rates {
  const [{ images, side, features }] = m.reports;
  const given = features === 'ready';
  const made = images.reduce((a, b) => a + b, 0);
  const once = given ? median(m.reports.map((report) => report.features_seconds)) / made : 0;
  const perImage = m.seconds / median(images);
  return {
    ...{ label: m.label, baseline: side === 'pytorch', given, peak_rss_bytes: m.peak_rss_bytes },
    steps: 1 / perImage,
    once: once * 1000,
    job: 1 / (perImage + once / epochs),
  };
}

/** Ratios are relative to the fastest PyTorch that computes all parts at each step, and to the fastest with given features. */
export function demoTable(rates: readonly Rates[]): string {
  const fastest = (given: boolean, key: 'steps' | 'job') =>
    Math.max(...rates.filter((rate) => rate.baseline && rate.given === given).map((rate) => rate[key]));
  const [plain, cached] = [fastest(false, 'job'), fastest(true, 'steps')];
  const head = [
    '',
    'images/s, steps',
    'once, ms/image',
    'images/s, job',
    'job',
    'steps, features given',
    'peak RSS, GB',
  ];
  const rows = rates.map(({ label, given, steps, once, job, peak_rss_bytes }) => [
    label,
    ...[digits(steps), given ? digits(once) : '', digits(job), times(job / plain)],
    given ? times(steps / cached) : '',
    gigabytes(peak_rss_bytes),
  ]);
  return markdownTable(head, rows);
}
