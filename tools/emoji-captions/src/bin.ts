#!/usr/bin/env node
// node dist/bin.js people --output data/emoji/people
import { parseArgs } from 'node:util';
import { SPLITS } from './people-grid';
import { writePeople } from './people-folder';
import type { PeopleTask } from './people-folder';

const HELP = `Renders the demo data set from the installed emoji packages. Nothing is downloaded.

  people --output data/emoji/people                     captions in the house style
  people --task vqa --output data/emoji/people-vqa      questions and answers

Options
  --output DIR    folder to write (train/, validation/, test/)   default data/emoji/people
  --task NAME     caption or vqa                                 default caption
  --size N        pixels per side                                default 64
  --seed N        seed of the split                              default 0
  --limit N       at most N images per split, for a quick look
  --force         render again even if the folder is complete`;

class UsageError extends Error {}

function parse(args: string[]) {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      output: { type: 'string' },
      task: { type: 'string', default: 'caption' },
      size: { type: 'string', default: '64' },
      seed: { type: 'string', default: '0' },
      limit: { type: 'string' },
      force: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  return { ...values, command: positionals[0] };
}

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least)
    throw new UsageError(`--${name}: expected a whole number of at least ${least}, found "${text}"`);
  return value;
}

async function main(args: string[]): Promise<void> {
  const options = parse(args);
  if (options.help) return console.log(HELP);
  if (options.command !== 'people')
    throw new UsageError(`expected the data set people, found "${options.command ?? ''}"`);
  if (options.task !== 'caption' && options.task !== 'vqa')
    throw new UsageError(`--task: expected caption or vqa, found "${options.task}"`);
  const folder = await writePeople({
    output: options.output ?? (options.task === 'vqa' ? 'data/emoji/people-vqa' : 'data/emoji/people'),
    task: options.task satisfies PeopleTask,
    size: wholeNumber('size', options.size, 8),
    seed: wholeNumber('seed', options.seed, 0),
    limit: options.limit === undefined ? undefined : wholeNumber('limit', options.limit, 1),
    force: options.force,
  });
  const counts = SPLITS.map((name) => `${name} ${folder.images[name]}`).join(', ');
  const status = folder.rendered ? `rendered in ${folder.seconds.toFixed(1)} s` : 'already complete';
  console.log(`${folder.output}: ${counts} images; ${status}`);
}

main(process.argv.slice(2)).catch((error: Error & { code?: string }) => {
  const usage = error instanceof UsageError || error.code?.startsWith('ERR_PARSE_ARGS');
  console.error(usage ? `${error.message}\n\n${HELP}` : `emoji-captions: ${error.message}`);
  process.exitCode = usage ? 2 : 1;
});
