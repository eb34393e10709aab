/** `blip2 import-lavis`: a LAVIS checkpoint as a Hugging Face folder. */
import type { Command } from 'commander';
import { importLavis } from '@blip2/weights/node';
import { modelDir } from '../model';
import { command } from '../options';
import type { Ui } from '../ui';

interface ImportFlags {
  base: string;
  output: string;
}

export function importLavisCommand(ui: Ui): Command {
  return command(
    'import-lavis',
    'Put a checkpoint of LAVIS (.pth) into a Hugging Face model folder.',
    'blip2 import-lavis checkpoint_best.pth --base blip2-opt-2.7b --output my-model',
  )
    .argument('<file>', "LAVIS's checkpoint; nothing in it is run")
    .requiredOption(
      '--base <dir>',
      'model folder that holds the rest: what LAVIS did not train, configuration, tokenizer',
    )
    .requiredOption('--output <dir>', 'new folder for the model')
    .action((file: string, flags: ImportFlags) => importCheckpoint(file, flags, ui));
}

async function importCheckpoint(file: string, { base, output }: ImportFlags, ui: Ui): Promise<void> {
  const { imported, kept } = await importLavis(file, modelDir(base), output);
  ui.result(
    { output, imported, kept },
    `${imported.length} tensors of ${file} and ${kept} of ${base}: ${output}`,
  );
}
