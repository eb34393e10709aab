/** Runs the command in specs, with a tiny model, a few images and an Io that records its output. */
import { copyFile, mkdir, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Io } from '../src/io';
import { run } from '../src/run';

const fixtures = fileURLToPath(new URL('../../blip2/fixtures/', import.meta.url));
export const TINY = join(fixtures, 'tiny');
export const IMAGE = join(fixtures, 'images', 'red.png');
export const PATTERN = '^a (?<colour>\\w+) thing$';

export interface Ran {
  code: number;
  out: string;
  err: string;
}

/** Runs one command line; `onStderr` is called with each text written to stderr. */
export async function cli(
  argv: string[],
  o: Partial<Io> & { onStderr?: (text: string) => void } = {},
): Promise<Ran> {
  const ran: Ran = { code: -1, out: '', err: '' };
  const io: Io = {
    stdout: (text) => void (ran.out += text),
    stderr: (text) => {
      ran.err += text;
      o.onStderr?.(text);
    },
    stdin: () => Promise.resolve(''),
    terminal: false,
    columns: 80,
    colour: { stdout: false, stderr: false },
    env: {},
    onInterrupt: () => () => undefined,
    exit: () => undefined,
    ...o,
  };
  ran.code = await run(argv, io);
  return ran;
}

/** A data set with three splits of three captioned images each; every training row occurs `copies` times. */
export async function tinyData(copies = 4): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'blip2-cli-'));
  for (const split of ['train', 'validation', 'test']) {
    await mkdir(join(root, split));
    const rows: string[] = [];
    for (const colour of ['red', 'grey', 'blue-alpha']) {
      await copyFile(join(fixtures, 'images', `${colour}.png`), join(root, split, `${colour}.png`));
      const row = { file_name: `${colour}.png`, text: `a ${colour.split('-')[0]} thing` };
      for (let i = 0; i < (split === 'train' ? copies : 1); i++) rows.push(JSON.stringify(row));
    }
    await writeFile(join(root, split, 'metadata.jsonl'), rows.join('\n') + '\n');
  }
  return root;
}

/** Arguments of a short run on the CPU. */
export function fitArgs(data: string, output: string, ...more: string[]): string[] {
  const options = ['--model', TINY, '--data', data, '--output', output, '--backend', 'cpu'];
  const settings = [
    'num_train_epochs=2',
    'learning_rate=0.02',
    'per_device_train_batch_size=16',
    `parts_pattern=${PATTERN}`,
    'generation.max_new_tokens=12',
    `cache_dir=${join(data, 'features')}`,
  ];
  return ['fit', ...options, ...settings.flatMap((setting) => ['--set', setting]), ...more];
}
