/** Options that several commands share, read and checked in one way. */
import { Command, InvalidArgumentError } from 'commander';

export const BACKENDS = ['auto', 'native', 'tensorflow', 'wasm', 'cpu'] as const;
export type Backend = (typeof BACKENDS)[number];

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

/** Model, adapter, backend and the options of generation, spelled as in transformers. */
export function modelOptions(target: Command): Command {
  return target
    .requiredOption('--model <dir>', 'folder of the checkpoint (Hugging Face layout)')
    .option('--adapter <dir>', 'PEFT adapter folder to put on the model')
    .option('--backend <name>', `where to compute: ${BACKENDS.join(', ')}`, backend, 'auto');
}

export function generationOptions(target: Command, batch = 16): Command {
  return target
    .option('--max-new-tokens <n>', 'most tokens per text', positive, 30)
    .option('--num-beams <n>', '1 is greedy', positive, 1)
    .option('--batch-size <n>', 'images at a time', positive, batch);
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
  const known = BACKENDS.find((name) => name === text);
  if (!known) throw new InvalidArgumentError(`Expected one of ${BACKENDS.join(', ')}, found "${text}".`);
  return known;
}
