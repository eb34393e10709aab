/** `blip2 merge`: merges an adapter into its model and saves one checkpoint. */
import type { Command } from 'commander';
import { withOwnTies } from '@blip2/blip2';
import { writeModel } from '@blip2/blip2/node';
import { safeMergeLora } from '@blip2/peft-lora';
import { MODEL_FOLDER, newFolder } from '@blip2/weights/node';
import { withBase } from '../base';
import { modelDir, openModel } from '../model';
import type { Backend } from '../options';
import { backend, command } from '../options';
import { UsageError } from '../errors';
import type { Ui } from '../ui';

const DTYPES = ['F32', 'F16', 'BF16'] as const;

interface MergeFlags {
  model?: string;
  adapter: string;
  output: string;
  dtype: string;
  backend: Backend;
}

export function mergeCommand(ui: Ui): Command {
  return command(
    'merge',
    'Merge an adapter into its model and write one checkpoint that transformers can load.',
    'blip2 merge --model models/blip2-emoji-mini --adapter runs/emoji-demo/adapter --output merged',
  )
    .option('--model <dir>', 'base checkpoint folder; default: the one that the adapter names')
    .requiredOption('--adapter <dir>', 'PEFT adapter folder')
    .requiredOption('--output <dir>', 'new folder for the merged checkpoint')
    .option('--dtype <name>', `data type of the saved weights: ${DTYPES.join(', ')}`, 'F32')
    .option('--backend <name>', 'backend to compute on', backend, 'auto')
    .action((flags: MergeFlags) => merge(flags, ui));
}

async function merge(given: MergeFlags, ui: Ui): Promise<void> {
  const flags = await withBase(given, ui);
  const dtype = DTYPES.find((name) => name === flags.dtype.toUpperCase());
  if (!dtype) throw new UsageError(`--dtype: expected one of ${DTYPES.join(', ')}, found "${flags.dtype}"`);
  await newFolder(flags.output, MODEL_FOLDER, async (at) => {
    const { model } = await openModel(flags, ui);
    const merged = withOwnTies({ ...model, params: await safeMergeLora(model.params) });
    await writeModel(merged, at, { dtype, copyFrom: modelDir(flags.model) });
  });
  ui.result({ output: flags.output, dtype }, `merged model: ${flags.output}`);
}
