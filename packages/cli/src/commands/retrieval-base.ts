/** `blip2 retrieval-base`: a model for retrieval from the tower and the Q-Former of a model for captions. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadFolder } from '@blip2/blip2/node';
import { useBackend } from '@blip2/nn/node';
import { framedTokenizer, retrievalFrom } from '@blip2/retrieval';
import { isRetrievalFolder, saveRetrievalModel } from '@blip2/retrieval/node';
import { readJsonFile } from '@blip2/weights/node';
import type { Command } from 'commander';
import { UsageError } from '../errors';
import { modelDir } from '../model';
import { command, positive, whole } from '../options';
import type { Ui } from '../ui';

interface BaseFlags {
  model: string;
  output: string;
  maxTextLength: number;
  seed: number;
}

export function retrievalBaseCommand(ui: Ui): Command {
  return command(
    'retrieval-base',
    'Make an untrained model for retrieval from the vision tower and Q-Former of a model for captions.',
    'blip2 retrieval-base --model models/blip2-emoji-mini --output runs/search-base',
  )
    .requiredOption('--model <dir>', 'checkpoint folder of a model for captions')
    .requiredOption('--output <dir>', 'new folder for the model')
    .option('--max-text-length <n>', 'most tokens of a text', positive, 64)
    .option('--seed <n>', 'seed of the new words, projections and matching head', whole, 0)
    .action((flags: BaseFlags) => makeBase(flags, ui));
}

async function makeBase({ model, output, maxTextLength, seed }: BaseFlags, ui: Ui): Promise<void> {
  const dir = modelDir(model);
  if (isRetrievalFolder(dir))
    throw new UsageError(`${model} is a model for retrieval already; train it with fit`);
  const json = (await readJsonFile(join(dir, 'tokenizer.json'))) as Record<string, unknown>;
  const { vocab_size, files } = framedTokenizer(json, maxTextLength);
  await useBackend('cpu');
  const made = retrievalFrom(await loadFolder(dir), {
    ...{ vocab_size, seed, max_position_embeddings: maxTextLength },
  });
  const own = { ...files, 'preprocessor_config.json': await imageProcessor(dir) };
  await saveRetrievalModel(made, output, { files: own });
  ui.result(
    { output, model, vocab_size },
    `${output}: vision tower and Q-Former of ${model}; ${vocab_size.toLocaleString('en')} words, projections and ` +
      'matching head are new: train them with blip2 fit',
  );
}

/** preprocessor_config.json, or that part of processor_config.json. */
async function imageProcessor(dir: string): Promise<object> {
  const own = join(dir, 'preprocessor_config.json');
  if (existsSync(own)) return (await readJsonFile(own)) as object;
  const { image_processor } = (await readJsonFile(join(dir, 'processor_config.json'))) as {
    image_processor: object;
  };
  return image_processor;
}
