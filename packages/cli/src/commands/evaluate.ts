/** `blip2 evaluate`: scores a model on a data set, together with controls. */
import type { Command } from 'commander';
import type { Blip2 } from '@blip2/blip2';
import { listSplits, openDataset } from '@blip2/data-captions';
import type { DatasetOptions, Example, Task } from '@blip2/data-captions';
import { examplesOpener, generateCaptions, judge, namedReferences } from '@blip2/trainer';
import type { CaptionOptions, JudgeOptions } from '@blip2/trainer';
import type { ModelFlags, Opened } from '../model';
import { openModel, openTexts } from '../model';
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
import { describeFigures, paintTable } from '../results';
import type { Ui } from '../ui';

interface EvaluateFlags extends ModelFlags, GenerationFlags {
  data: string;
  split?: string;
  task?: string;
  prompt?: string;
  partsPattern?: string;
  limit?: number;
  seed: number;
  splitFractions?: DatasetOptions['split_fractions'];
  skipBad?: boolean;
  controls?: boolean;
}

export function evaluateCommand(ui: Ui): Command {
  const evaluation = command(
    'evaluate',
    'Score captions or answers on a data set, together with controls.',
    'blip2 evaluate --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter --data data/emoji/people --split test',
  );
  return generationOptions(layoutOptions(modelOptions(evaluation)), 32)
    .requiredOption('--data <path>', 'a folder or file in any format, with or without splits')
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
    .option('--controls', 'also score the base model, majority caption, nearest neighbour and pixel probe')
    .action((flags: EvaluateFlags) => evaluate(flags, ui));
}

async function evaluate(flags: EvaluateFlags, ui: Ui): Promise<void> {
  const { split, examples, task, controlData } = await openExamples(flags, ui);
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
    ...controlData,
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
    { model, adapter, backend: opened.backend, ...table, metrics: figures, predictions },
    () => `${paintTable(table)}\n\n${describeFigures(figures)}`,
  );
}

/** Opens the examples to score and, with --controls, the data for the controls. */
async function openExamples(flags: EvaluateFlags, ui: Ui) {
  const { data, limit, seed, skipBad: skip_bad, splitFractions: split_fractions, prompt } = flags;
  const layout = layoutIn(flags);
  const splits = await listSplits(data, split_fractions, layout);
  const split = flags.split ?? ['test', 'validation', ...splits].find((name) => splits.includes(name));
  if (flags.controls && !splits.includes('train'))
    throw new Error(`${data}: --controls: expected a train split, found ${splits.join(', ') || 'no splits'}`);
  const open = examplesOpener({ onMessage: (text) => ui.log(text) });
  const drawn = { ...layout, seed, split_fractions, skip_bad };
  const task = taskOf(flags.task, await firstExample(data, { ...drawn, split }));
  const texts = await openTexts(flags.model, { task, prompt });
  const heldOut = async (split: string | undefined, limit?: number) =>
    (await open(data, { ...drawn, split, limit, texts, references_for: task })).examples;
  const examples = await heldOut(split, limit);
  if (!flags.controls) return { split, examples, task };
  const { examples: train } = await open(data, { ...drawn, split: 'train', texts });
  const validation = splits.includes('validation') ? await heldOut('validation') : undefined;
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
    onProgress: (done, total) => ui.progress('captions', `${done} of ${total} images`, done === total),
  };
}
