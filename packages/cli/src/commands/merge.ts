/** `blip2 merge`: merges an adapter into its model and saves one checkpoint. */
import type { Command } from 'commander';
import { withOwnTies } from '@blip2/blip2';
import { writeModel } from '@blip2/blip2/node';
import { safeMergeLora } from '@blip2/peft-lora';
import { saveRetrievalModel } from '@blip2/retrieval/node';
import { MODEL_FOLDER, newFolder } from '@blip2/weights/node';
import { withBase } from '../base';
import { modelDir, openModel } from '../model';
import type { Backend } from '../options';
import { backend, command } from '../options';
import { UsageError } from '../errors';
import { isRetrievalModel, openRetrieval } from '../retrieval';
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
  if (isRetrievalModel(flags.model)) return mergeRetrieval(flags, dtype, ui);
  await newFolder(flags.output, MODEL_FOLDER, async (at) => {
    const { model } = await openModel(flags, ui);
    const merged = withOwnTies({ ...model, params: await safeMergeLora(model.params) });
    await writeModel(merged, at, { dtype, copyFrom: modelDir(flags.model) });
  });
  ui.result({ output: flags.output, dtype }, `merged model: ${flags.output}`);
}

/** @throws UsageError for other types of data than float32 */
async function mergeRetrieval(
  { model: name, adapter, output, backend }: MergeFlags & { model: string },
  dtype: (typeof DTYPES)[number],
  ui: Ui,
): Promise<void> {
  if (dtype !== 'F32')
    throw new UsageError(`--dtype: a model for retrieval is written in F32, found ${dtype}`);
  await newFolder(output, MODEL_FOLDER, async (at) => {
    const flags = { model: name, adapter, backend, precision: 'float32' as const, batchSize: 1 };
    const { model } = await openRetrieval(flags, ui);
    const merged = { ...model, params: await safeMergeLora(model.params) };
    await saveRetrievalModel(merged, at, { copyFrom: modelDir(name) });
  });
  ui.result({ output, dtype }, `merged model: ${output}`);
}
