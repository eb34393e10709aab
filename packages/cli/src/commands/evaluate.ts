/** `blip2 evaluate`: scores a model on a data set, together with controls. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { Command } from 'commander';
import type { Blip2, GenerateOptions } from '@blip2/blip2';
import { listSplits, openDataset } from '@blip2/data-captions';
import type { DatasetOptions, Example, Task } from '@blip2/data-captions';
import {
  examplesOpener,
  generateCaptions,
  heldOut,
  judge,
  namedReferences,
  openRun,
  trainedPictures,
} from '@blip2/trainer';
import type { CaptionOptions, FinishedRun, FitConfig, JudgeOptions } from '@blip2/trainer';
import { withBase } from '../base';
import { evaluateRetrieval } from './evaluate-retrieval';
import { UsageError } from '../errors';
import type { ModelFlags, Opened } from '../model';
import { openModel, openTexts } from '../model';
import { isRetrievalModel } from '../retrieval';
import type { GenerationFlags } from '../options';
import {
  command,
  fractions,
  generationOptions,
  layoutIn,
  layoutOptions,
  modelOptions,
  partsPattern,
  positive,
  taskOf,
  whole,
} from '../options';
import { paint } from '../printable';
import { describeFigures, paintTable } from '../results';
import type { Ui } from '../ui';

interface EvaluateFlags extends ModelFlags, GenerationFlags {
  data?: string;
  split?: string;
  task?: string;
  prompt?: string;
  partsPattern?: string;
  limit?: number;
  seed: number;
  splitFractions?: DatasetOptions['split_fractions'];
  skipBad?: boolean;
  controls?: boolean;
  /** of a run */
  generation?: GenerateOptions;
  maxTextLength?: number;
  rerank?: number;
}

/** What is scored, and with --controls what the controls are made from. */
interface Scored {
  split?: string;
  examples: Example[];
  task: Task;
  controlData?: Pick<JudgeOptions, 'validation'> & { train: Example[] };
}

export function evaluateCommand(ui: Ui): Command {
  const evaluation = command(
    'evaluate',
    'Score captions or answers on a data set, together with controls.',
    'blip2 evaluate --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter --data data/emoji/people --split test',
  ).argument('[run]', 'run folder of fit: its result, and without --data the pictures that it held out');
  return generationOptions(layoutOptions(modelOptions(evaluation)), 32)
    .option('--data <path>', 'a folder or file in any format, with or without splits')
    .option(
      '--split <name>',
      'split to score (default: test, else validation, else the first; all rows if there are no splits)',
    )
    .option('--task <name>', 'caption or vqa (default: vqa if the rows have questions)')
    .option('--prompt <text>', 'text before every caption, or the template of questions')
    .option(
      '--parts-pattern <regex>',
      'regular expression with named groups; each group is also scored',
      partsPattern,
    )
    .option('--limit <n>', 'score at most this many pictures, or questions about pictures', positive)
    .option(
      '--split-fractions <list>',
      'split shares that the run of fit used, such as validation=0.1,test=0.2',
      fractions,
    )
    .option('--seed <n>', 'seed of --limit, --split-fractions and the controls', whole, 0)
    .option('--skip-bad', 'skip unusable rows and images, and list them')
    .option(
      '--rerank <k>',
      'of a model for retrieval: also order the nearest k by matching, which reads image and text together',
      positive,
    )
    .option('--controls', 'also score the base model, majority caption, nearest neighbour and pixel probe')
    .action((run: string | undefined, flags: EvaluateFlags) =>
      evaluate(run, flags, (name) => evaluation.getOptionValueSource(name) === 'cli', ui),
    );
}

async function evaluate(
  dir: string | undefined,
  given: EvaluateFlags,
  isGiven: (flag: string) => boolean,
  ui: Ui,
): Promise<void> {
  if (dir === undefined && given.data === undefined)
    throw new UsageError(
      'expected --data, or a run folder, whose held-out pictures are scored; found neither',
    );
  const run = dir === undefined ? undefined : await openRun(dir);
  const flags = await withBase(run ? withRun(run, given, isGiven) : given, ui);
  if (isRetrievalModel(flags.model)) return scoreRetrieval(run?.config, flags, ui);
  if (flags.rerank !== undefined)
    throw new UsageError(`--rerank: expected a model for retrieval, found ${flags.model}`);
  const scored =
    flags.data === undefined ? await openHeldOut(run!.config, flags, ui) : await openExamples(flags, ui);
  const { split, examples, task, controlData } = scored;
  const trained = await trainedOn(dir ?? runOf(flags), examples, ui);
  const options = captionOptions(flags, task, ui);
  const opened = await openModel(flags, ui);
  const textsOf = (model: Blip2) => generateCaptions(model, opened.processor, examples, options);
  const texts = await textsOf(opened.model);
  const { table, figures, references } = await judge(texts, {
    ...judgeOptions(flags, opened, ui),
    ...options,
    onProgress: undefined,
    test: examples,
    split,
    seed: flags.seed,
    ...(flags.controls && controlData),
    ...(flags.controls && flags.adapter && { before: await textsOf(opened.base) }),
  });
  const predictions = examples.map(({ image, question }, i) => ({
    image,
    ...(question !== undefined && { question }),
    ...namedReferences(references[i]),
    text: texts[i],
  }));
  const { model, adapter } = flags;
  ui.result(
    {
      model,
      adapter,
      backend: opened.backend,
      ...(trained > 0 && { trained_pictures: trained }),
      ...table,
      metrics: figures,
      predictions,
    },
    () => `${paintTable(table)}\n\n${describeFigures(figures)}`,
  );
}

/** @throws UsageError for options that only captions and answers have */
async function scoreRetrieval(
  config: FitConfig | undefined,
  flags: EvaluateFlags & { model: string },
  ui: Ui,
): Promise<void> {
  const { model, data, controls, limit, task, prompt } = flags;
  if (controls || task === 'vqa' || prompt !== undefined)
    throw new UsageError(
      `${model} is a model for retrieval: leave out --controls, --prompt and --task vqa; a random order is always shown`,
    );
  const found = data === undefined ? await heldOutPairs(config!, flags, ui) : await pairs(data, flags);
  const { split, examples } = found;
  if (split !== undefined) ui.log(`split: ${split}`);
  await trainedOn(runOf(flags), examples, ui);
  await evaluateRetrieval(flags, { split, examples: examples.slice(0, limit) }, ui);
}

async function pairs(data: string, flags: EvaluateFlags) {
  const drawn = { ...(await splitOf({ ...flags, data })), splits: undefined };
  const { examples } = await openDataset(data, { ...drawn, limit: flags.limit, references_for: 'caption' });
  return { split: drawn.split, examples };
}

async function heldOutPairs(config: FitConfig, { split, limit }: EvaluateFlags, ui: Ui) {
  const onMessage = (text: string) => ui.log(text);
  const { dataset, ...found } = await heldOut(config, { task: 'caption' }, { split, limit, onMessage });
  return { split: found.split, examples: dataset.examples };
}

/** Which split is scored, and how the data set is read. */
async function splitOf(flags: EvaluateFlags & { data: string }) {
  const { data, seed, skipBad: skip_bad, splitFractions: split_fractions } = flags;
  const layout = layoutIn(flags);
  const splits = await listSplits(data, split_fractions, layout);
  const split = flags.split ?? ['test', 'validation', ...splits].find((name) => splits.includes(name));
  return { ...layout, seed, split_fractions, skip_bad, split, splits };
}

/** The flags with the model and settings of a run; those on the command line win. */
function withRun(run: FinishedRun, flags: EvaluateFlags, isGiven: (flag: string) => boolean): EvaluateFlags {
  const { config, model, adapter } = run;
  const { max_new_tokens: maxNewTokens, num_beams: numBeams, ...generation } = config.generation;
  const { task, prompt, precision, seed, alpha } = config;
  const own = {
    ...{ model, adapter, maxNewTokens, numBeams, task, prompt, precision, seed, alpha },
    imageOrientation: config.image_orientation,
    partsPattern: config.parts_pattern,
    maxTextLength: config.max_text_length,
    batchSize: config.per_device_eval_batch_size,
  };
  const kept = Object.entries(own).filter(([name]) => !isGiven(name));
  return { ...flags, ...(Object.fromEntries(kept) as typeof own), generation };
}

/** The examples that a run held out. @throws UsageError for options of other data */
async function openHeldOut(
  config: FitConfig,
  flags: EvaluateFlags & { model: string },
  ui: Ui,
): Promise<Scored> {
  const other = Object.entries({ ...layoutIn(flags), split_fractions: flags.splitFractions }).find(
    ([, value]) => value !== undefined,
  );
  if (other)
    throw new UsageError(`--${other[0].replace('_', '-')}: expected --data with it; the run has its own`);
  const texts = await openTexts(flags.model, { ...config, max_text_length: flags.maxTextLength });
  const { split, limit } = flags;
  const { data, dataset, ...found } = await heldOut(config, texts, {
    split,
    limit,
    onMessage: (text) => ui.log(text),
  });
  const controlData = { train: data.train.examples, validation: data.validation?.examples };
  return { split: found.split, examples: dataset.examples, task: config.task, controlData };
}

/** The run folder that the adapter or model lies in, if any. */
function runOf({ model, adapter }: { model: string; adapter?: string }): string | undefined {
  const dir = dirname(resolve(adapter ?? model));
  return existsSync(join(dir, 'config.yaml')) ? dir : undefined;
}

/** Prints how many of the pictures the run was trained on. */
async function trainedOn(dir: string | undefined, examples: Example[], ui: Ui): Promise<number> {
  if (dir === undefined) return 0;
  const pictures = [...new Set(examples.map(({ image }) => image))];
  try {
    const { length } = await trainedPictures(dir, pictures);
    if (length > 0)
      ui.log(
        paint.yellow(
          `warning: the run ${dir} was trained on ${length} of these ${pictures.length} pictures, so the scores do not show ` +
            `how it does on new ones; those that it held out: npx blip2 evaluate ${dir}`,
        ),
      );
    return length;
  } catch (error) {
    ui.log(`whether the run ${dir} was trained on these pictures is not known: ${(error as Error).message}`);
    return 0;
  }
}

/** Opens the examples to score and, with --controls, the data for the controls. */
async function openExamples(flags: EvaluateFlags & { model: string }, ui: Ui): Promise<Scored> {
  const { data = '', limit, prompt } = flags;
  const { split, splits, ...drawn } = await splitOf({ ...flags, data });
  if (flags.controls && !splits.includes('train'))
    throw new Error(`${data}: --controls: expected a train split, found ${splits.join(', ') || 'no splits'}`);
  const open = examplesOpener({ onMessage: (text) => ui.log(text) });
  const task = taskOf(flags.task, await firstExample(data, { ...drawn, split }));
  const texts = await openTexts(flags.model, { task, prompt, max_text_length: flags.maxTextLength });
  const held = async (split: string | undefined, limit?: number) =>
    (await open(data, { ...drawn, split, limit, texts, references_for: task })).examples;
  const examples = await held(split, limit);
  if (!flags.controls) return { split, examples, task };
  const { examples: train } = await open(data, { ...drawn, split: 'train', texts });
  const validation = splits.includes('validation') ? await held('validation') : undefined;
  return { split, examples, task, controlData: { train, validation } };
}

/** The example that the task follows from, if it is not given. */
async function firstExample(data: string, options: DatasetOptions): Promise<Example> {
  const { examples } = await openDataset(data, { ...options, limit: 1, skip_bad: true });
  return examples[0];
}

function judgeOptions(flags: EvaluateFlags, { model, processor }: Opened, ui: Ui) {
  return {
    name: flags.adapter ? 'model with adapter' : 'model',
    model,
    processor,
    partsPattern: flags.partsPattern,
    onControl: (name: string) => ui.log(`control: ${name}`),
  } satisfies Partial<JudgeOptions>;
}

function captionOptions(flags: EvaluateFlags, task: Task, ui: Ui): CaptionOptions {
  return {
    task,
    prompt: flags.prompt,
    batch_size: flags.batchSize,
    max_new_tokens: flags.maxNewTokens,
    num_beams: flags.numBeams,
    generation: flags.generation,
    onProgress: (done, total) => ui.progress('captions', `${done} of ${total} images`, done === total),
  };
}
