/** `blip2 evaluate`: how often is the model right on a data set, and against what? */
import type { Command } from 'commander';
import { listSplits, openDataset } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import {
  blankCaptions,
  generateCaptions,
  referenceOf,
  resultRow,
  runControls,
  scoreCaptions,
} from '@blip2/trainer';
import type { CaptionOptions, ResultRow, ResultsTable } from '@blip2/trainer';
import { UsageError } from '../errors';
import type { ControlTexts } from '../evaluate-metrics';
import { describeMetrics, evaluationMetrics } from '../evaluate-metrics';
import type { ModelFlags, Opened } from '../model';
import { openModel } from '../model';
import type { GenerationFlags } from '../options';
import { command, generationOptions, modelOptions, partsPattern, positive } from '../options';
import { paintTable } from '../results';
import type { Ui } from '../ui';

interface EvaluateFlags extends ModelFlags, GenerationFlags {
  data: string;
  split?: string;
  task?: string;
  prompt?: string;
  partsPattern?: string;
  limit?: number;
  seed: string;
  controls?: boolean;
}

export function evaluateCommand(ui: Ui): Command {
  const made = command(
    'evaluate',
    'Score captions or answers on a data set, beside controls.',
    'blip2 evaluate --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter --data data/emoji/people --split test',
  );
  return generationOptions(modelOptions(made), 32)
    .requiredOption('--data <path>', 'folder with metadata.jsonl, folder with splits, or .jsonl file')
    .option(
      '--split <name>',
      'which split (default: test, else validation, else the first; all rows without splits)',
    )
    .option('--task <name>', 'caption or vqa (default: what the rows hold)')
    .option('--prompt <text>', 'text before every caption, or the template of questions')
    .option(
      '--parts-pattern <regex>',
      'regular expression with named groups; each is scored too',
      partsPattern,
    )
    .option('--limit <n>', 'score at most this many examples', positive)
    .option('--seed <n>', 'of --limit and of the controls', '0')
    .option('--controls', 'also score blank and shuffled images, majority, nearest neighbour and pixel probe')
    .action((flags: EvaluateFlags) => evaluate(flags, ui));
}

async function evaluate(flags: EvaluateFlags, ui: Ui): Promise<void> {
  const seed = Number(flags.seed);
  if (!Number.isSafeInteger(seed) || seed < 0)
    throw new UsageError(`--seed: expected a whole number, found "${flags.seed}"`);
  const splits = await listSplits(flags.data);
  const split = flags.split ?? ['test', 'validation', ...splits].find((name) => splits.includes(name));
  if (flags.controls && !splits.includes('train'))
    throw new Error(
      `${flags.data}: --controls needs a train split to guess from; splits here: ${splits.join(', ') || 'none'}`,
    );
  const { examples } = await openDataset(flags.data, { split, limit: flags.limit, seed });
  const options = captionOptions(flags, examples, ui);
  const opened = await openModel(flags, ui);

  const captions = await generateCaptions(opened.model, opened.processor, examples, options);
  const references = examples.map((example) => referenceOf(example, options.task));
  const name = flags.adapter ? 'model with adapter' : 'model';
  const score = scoreCaptions(captions, references, flags.partsPattern);
  const rows: ResultRow[] = [resultRow(name, 'model', score)];
  const under: ControlTexts = {};
  if (flags.controls)
    rows.push(...(await controls(flags, splits, examples, opened, options, seed, ui, under)));
  else if (options.task === 'vqa')
    under['blank image'] = await blankCaptions({
      ...options,
      ...opened,
      test: examples,
      onProgress: undefined,
    });
  const metrics = evaluationMetrics(options.task, examples, captions, under);

  const table: ResultsTable = { rows, parts: Object.keys(score.parts), n: examples.length, split };
  const predictions = examples.map(({ image, question }, i) => ({
    image,
    ...(question !== undefined && { question }),
    reference: references[i],
    text: captions[i],
  }));
  ui.result(
    { model: flags.model, adapter: flags.adapter, backend: opened.backend, ...table, metrics, predictions },
    () => `${paintTable(table, ui)}\n\n${describeMetrics(metrics)}`,
  );
}

function captionOptions(flags: EvaluateFlags, examples: Example[], ui: Ui): CaptionOptions {
  const task = flags.task ?? (examples[0]?.question === undefined ? 'caption' : 'vqa');
  if (task !== 'caption' && task !== 'vqa')
    throw new UsageError(`--task: expected caption or vqa, found "${task}"`);
  const key = task === 'vqa' ? 'answer' : 'caption';
  const bare = examples.find((example) => example[key] === undefined);
  if (bare) throw new Error(`${bare.source}: expected a row with "${key}" to compare with, found none`);
  return {
    task,
    prompt: flags.prompt,
    batch_size: flags.batchSize,
    max_new_tokens: flags.maxNewTokens,
    num_beams: flags.numBeams,
    onProgress: (done, total) => ui.progress('captions', `${done} of ${total} images`, done === total),
  };
}

async function controls(
  flags: EvaluateFlags,
  splits: string[],
  test: Example[],
  { model, base, processor }: Opened,
  options: CaptionOptions,
  seed: number,
  ui: Ui,
  under: ControlTexts,
): Promise<ResultRow[]> {
  const rowsOf = async (split: string) => (await openDataset(flags.data, { split })).examples;
  const baseCaptions = flags.adapter ? await generateCaptions(base, processor, test, options) : undefined;
  return runControls({
    ...options,
    model,
    processor,
    test,
    train: await rowsOf('train'),
    validation: splits.includes('validation') ? await rowsOf('validation') : undefined,
    partsPattern: flags.partsPattern,
    baseCaptions,
    seed,
    onControl: (name) => ui.log(`control: ${name}`),
    onTexts: (name, texts) => (under[name] = texts),
  });
}
