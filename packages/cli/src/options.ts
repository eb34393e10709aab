/** Options that several commands share, read and checked in one way. */
import type { BackendName, Precision as ComputePrecision } from '@blip2/nn';
import { BACKENDS, PRECISIONS } from '@blip2/nn';
import { Command, InvalidArgumentError, Option } from 'commander';

export type Backend = 'auto' | BackendName;
export type Precision = 'auto' | ComputePrecision;
const BACKEND_CHOICES: readonly Backend[] = ['auto', ...BACKENDS];

/** A command with the options that all of them have, and an example in its help. */
export function command(name: string, description: string, example: string): Command {
  return new Command(name)
    .description(description)
    .option('--json', 'print one JSON document on stdout, and nothing else there')
    .option('--verbose', 'print whole errors, with stack traces')
    .addHelpText('after', `\nExample:\n  $ ${example}`);
}

export interface GenerationFlags {
  maxNewTokens: number;
  numBeams: number;
  batchSize: number;
}

/** Model, adapter, backend, precision and the options of generation, spelled as in transformers. */
export function modelOptions(target: Command): Command {
  return target
    .requiredOption('--model <dir>', 'folder of the checkpoint (Hugging Face layout)')
    .option('--adapter <dir>', 'PEFT adapter folder to put on the model')
    .option('--backend <name>', `where to compute: ${BACKEND_CHOICES.join(', ')}`, backend, 'auto')
    .addOption(precision().default('auto'));
}

export function precision(): Option {
  return new Option(
    '--precision <name>',
    'of matrix products; auto: bfloat16 where the processor has it',
  ).choices(['auto', ...PRECISIONS]);
}

export function generationOptions(target: Command, batch = 16): Command {
  return target
    .option('--max-new-tokens <n>', 'most tokens per text', positive, 30)
    .option('--num-beams <n>', '1 is greedy', positive, 1)
    .option('--batch-size <n>', 'images at a time', positive, batch);
}

/** What `caption` and `answer` take beyond GenerationFlags. */
export interface DecodingFlags {
  minNewTokens?: number;
  repetitionPenalty?: number;
  lengthPenalty?: number;
  noRepeatNgramSize?: number;
  numReturnSequences?: number;
  doSample?: boolean;
  temperature?: number;
  topK?: number;
  topP?: number;
  seed?: number;
  stopStrings?: string[];
  stream?: boolean;
}

/** The rest of transformers' generation options, under its names and with its defaults. */
export function decodingOptions(target: Command): Command {
  return target
    .option('--min-new-tokens <n>', 'fewest tokens per text', whole)
    .option('--repetition-penalty <x>', 'above 1 makes tokens that are there already less likely', number)
    .option('--length-penalty <x>', 'with beams: above 0 favours long texts', number)
    .option('--no-repeat-ngram-size <n>', 'no n tokens in a row occur twice', whole)
    .option('--num-return-sequences <n>', 'texts per image, with --do-sample or --num-beams', positive)
    .option('--do-sample', 'draw tokens by their probabilities')
    .option('--temperature <x>', 'with --do-sample: below 1 sharpens, above 1 flattens', number)
    .option('--top-k <n>', 'with --do-sample: only the n likeliest tokens; 0 allows all (default: 50)', whole)
    .option(
      '--top-p <x>',
      'with --do-sample: only the likeliest tokens that make up this probability',
      number,
    )
    .option('--seed <n>', 'of --do-sample; the same seed gives the same texts (default: 0)', whole)
    .option('--stop-strings <text...>', 'a text ends where it contains one of these')
    .option('--stream', 'print the text of one image while it is written');
}

/** A whole number, 0 or more. */
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

export function positive(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError(`Expected a whole number of at least 1, found "${text}".`);
  return value;
}

/** A regular expression with named groups. */
export function partsPattern(text: string): string {
  try {
    new RegExp(text);
  } catch (error) {
    throw new InvalidArgumentError(`Expected a regular expression: ${(error as Error).message}.`);
  }
  if (text.includes('(?<')) return text;
  throw new InvalidArgumentError(`Expected named groups, such as (?<subject>.+), found "${text}".`);
}

export function backend(text: string): Backend {
  const known = BACKEND_CHOICES.find((name) => name === text);
  if (!known)
    throw new InvalidArgumentError(`Expected one of ${BACKEND_CHOICES.join(', ')}, found "${text}".`);
  return known;
}
