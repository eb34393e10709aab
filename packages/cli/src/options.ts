/** Options that several commands share, and their parsers. */
import type { GenerateOptions } from '@blip2/blip2';
import { ALPHAS, LAYOUT, layoutOf, ORIENTATIONS } from '@blip2/data-captions';
import type {
  Alpha,
  DatasetOptions,
  DecodeOptions,
  Example,
  ImageOrientation,
  Layout,
  Task,
} from '@blip2/data-captions';
import type { BackendName, Precision as ComputePrecision } from '@blip2/nn';
import { BACKENDS, PRECISIONS } from '@blip2/nn';
import { Command, InvalidArgumentError, Option } from 'commander';
import { UsageError } from './errors';

export type Backend = 'auto' | BackendName;
export type Precision = 'auto' | ComputePrecision;
const BACKEND_CHOICES: readonly Backend[] = ['auto', ...BACKENDS];

/** A command with the options of every command, and an example in its help text. */
export function command(name: string, description: string, example: string): Command {
  return new Command(name)
    .description(description)
    .option('--json', 'print one JSON document on stdout and nothing else')
    .option('--verbose', 'print complete errors with stack traces')
    .addHelpText('after', `\nExample:\n  $ ${example}`);
}

export interface GenerationFlags {
  maxNewTokens?: number;
  numBeams: number;
  batchSize: number;
}

/** Adds the options for images, model, adapter, backend and precision. */
export function modelOptions(target: Command): Command {
  return imageOptions(target)
    .option(
      '--model <dir>',
      'checkpoint folder (Hugging Face layout); default: the base that the adapter names',
    )
    .option('--adapter <dir>', 'PEFT adapter folder to apply to the model')
    .addOption(backendOption())
    .addOption(precision().default('auto'));
}

export function backendOption(): Option {
  return new Option('--backend <name>', 'backend to compute on')
    .choices(BACKEND_CHOICES)
    .argParser(backend)
    .default('auto');
}

export function precision(): Option {
  return new Option(
    '--precision <name>',
    'precision of matmuls; auto: bfloat16 if the processor or GPU is faster with it; int8: weights rounded to 8 bits; int4: the text model to 4',
  ).choices(['auto', ...PRECISIONS]);
}

/** Adds an option for each part of a Layout. */
export function layoutOptions(target: Command): Command {
  for (const [name, help] of Object.entries(LAYOUT)) {
    const value = name === 'image_folder' ? '<dir>' : '<name>';
    target.option(`--${name.replace('_', '-')} ${value}`, help);
  }
  return target;
}

/** The layout in the flags that commander parsed. */
export const layoutIn = (flags: object): Layout =>
  layoutOf(
    Object.fromEntries(
      Object.entries(flags).map(([flag, value]) => [
        flag.replace(/[A-Z]/, (one) => `_${one.toLowerCase()}`),
        value as string,
      ]),
    ),
  );

/** How images are decoded. */
export interface ImageFlags {
  imageOrientation?: ImageOrientation;
  alpha?: Alpha;
}

/** Adds the options of ImageFlags. */
export function imageOptions(target: Command): Command {
  return target
    .addOption(
      new Option(
        '--image-orientation <name>',
        'photos with an EXIF orientation: exif turns them upright, ignore does not (default: exif)',
      ).choices(ORIENTATIONS),
    )
    .addOption(
      new Option(
        '--alpha <name>',
        'transparent images: white blends them onto white, drop ignores the transparency (default: white)',
      ).choices(ALPHAS),
    );
}

/** The options of data-captions for these flags. */
export function decodingOf({ imageOrientation, alpha }: ImageFlags): DecodeOptions {
  return { image_orientation: imageOrientation, alpha };
}

/** Adds the options of GenerationFlags. */
export function generationOptions(target: Command, batch = 16): Command {
  return target
    .option(
      '--max-new-tokens <n>',
      'maximum number of tokens per text (default: 30, or as many as the model has room for)',
      positive,
    )
    .option('--num-beams <n>', 'beams of beam search; 1 is greedy decoding', positive, 1)
    .option('--batch-size <n>', 'images per batch', positive, batch);
}

/** Where the texts of pictures go, if not to stdout. */
export interface OutputFlags {
  output?: string;
  part?: string;
  format?: 'jsonl' | 'parquet';
  sidecars?: boolean;
  overwrite?: boolean;
}

/** Adds --output and --overwrite. @param row an example of a row */
export function outputOptions(target: Command, row: string): Command {
  return target
    .option(
      '--output <file>',
      `write one JSON object per picture, such as ${row}; if the file is there, continue it; of shards: a folder`,
    )
    .option(
      '--part <k/n>',
      'with --output: only every n-th picture, into NAME.part-k-of-n.jsonl, or every n-th shard; auto in an array job (see blip2 data join)',
    )
    .addOption(
      new Option('--format <name>', 'of the files that are written for shards (default: jsonl)').choices([
        'jsonl',
        'parquet',
      ]),
    )
    .option('--overwrite', 'replace texts that are there');
}

export const PICTURES =
  'image files, folders with all pictures in and below them, quoted patterns such as "photos/*.jpg", - for a list on standard input, or shards (.tar of WebDataset, .parquet) and folders of them';

/** Generation options that only `caption` and `answer` have, with the names and defaults of transformers. */
export interface DecodingFlags {
  numReturnSequences?: number;
  stream?: boolean;
  /** The others, which only `generateOptions` reads. */
  [option: string]: unknown;
}

const decoding = (flags: string, help: string, parse?: (text: string) => unknown) => {
  const option = new Option(flags, help);
  return parse ? option.argParser(parse) : option;
};

const DECODING = [
  decoding('--min-new-tokens <n>', 'minimum number of tokens per text', whole),
  decoding('--repetition-penalty <x>', 'above 1 makes tokens that already occurred less likely', number),
  decoding('--length-penalty <x>', 'with --num-beams: above 0 favours long texts', number),
  decoding('--no-repeat-ngram-size <n>', 'no sequence of n tokens occurs twice', whole),
  decoding('--num-return-sequences <n>', 'texts per image, with --do-sample or --num-beams', positive),
  decoding('--do-sample', 'sample tokens by their probabilities'),
  decoding('--temperature <x>', 'with --do-sample: below 1 sharpens, above 1 flattens', number),
  decoding(
    '--top-k <n>',
    'with --do-sample: only the n most likely tokens; 0 allows all (default: 50)',
    whole,
  ),
  decoding(
    '--top-p <x>',
    'with --do-sample: only the most likely tokens that add up to this probability',
    number,
  ),
  decoding('--seed <n>', 'seed of --do-sample; the same seed gives the same texts (default: 0)', whole),
  decoding('--stop-strings <text...>', 'end a text as soon as it contains one of these'),
];

/** Adds the options of DecodingFlags. */
export function decodingOptions(target: Command): Command {
  for (const option of DECODING) target.addOption(option);
  return target.option('--stream', 'print the text of one image while it is generated');
}

/** The options of `generate`, whose names are those of the command line. */
export function generateOptions(flags: DecodingFlags): GenerateOptions {
  const options = DECODING.map((option) => {
    const value = flags[option.attributeName()];
    // commander takes --no-repeat-ngram-size for a negation, whose default is true
    return [option.name().replaceAll('-', '_'), option.negate && value === true ? undefined : value] as const;
  });
  return Object.fromEntries(options.filter(([, value]) => value !== undefined));
}

/** Parses a whole number, 0 or more. */
export function whole(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value) || value < 0)
    throw new InvalidArgumentError(`Expected a whole number, found "${text}".`);
  return value;
}

function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value))
    throw new InvalidArgumentError(`Expected a number, found "${text}".`);
  return value;
}

/** Parses a whole number, 1 or more. */
export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError(`Expected a whole number of at least 1, found "${text}".`);
  return value;
}

/** Checks a regular expression with named groups. */
export function partsPattern(text: string): string {
  try {
    new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(
      `Expected a regular expression, found "${text}": ${(error as Error).message}.`,
    );
  }
  if (text.includes('(?<')) return text;
  throw new InvalidArgumentError(`Expected named groups, such as (?<subject>.+), found "${text}".`);
}

/** Checks a backend's name. */
export function backend(text: string): Backend {
  const known = BACKEND_CHOICES.find((name) => name === text);
  if (!known)
    throw new InvalidArgumentError(`Expected one of ${BACKEND_CHOICES.join(', ')}, found "${text}".`);
  return known;
}

/** The task of these rows, unless `task` names one. @throws UsageError for another word */
export function taskOf(task: string | undefined, row: Example | undefined): Task {
  const found = task ?? (row?.question === undefined ? 'caption' : 'vqa');
  if (found === 'caption' || found === 'vqa') return found;
  throw new UsageError(`--task: expected caption or vqa, found "${found}"`);
}

/** Parses `validation=0.1,test=0.2`; one number is the share of both. */
export function fractions(text: string): NonNullable<DatasetOptions['split_fractions']> {
  const both = Number(text);
  if (text.trim() !== '' && both > 0 && both < 0.5) return { validation: both, test: both };
  const pairs = text.split(',').map((pair) => /^(validation|test)=(\d*\.?\d+)$/.exec(pair.trim()));
  if (pairs.some((pair) => pair === null))
    throw new InvalidArgumentError(
      `Expected shares such as validation=0.1,test=0.2, or one below 0.5 for both, found "${text}".`,
    );
  return Object.fromEntries(pairs.map((pair) => [pair![1], Number(pair![2])]));
}
