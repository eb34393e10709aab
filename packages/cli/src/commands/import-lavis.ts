/** `blip2 import-lavis`: converts a LAVIS checkpoint to a Hugging Face folder. */
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
    'Convert a LAVIS checkpoint (.pth) to a Hugging Face model folder.',
    'blip2 import-lavis checkpoint_best.pth --base blip2-opt-2.7b --output my-model',
  )
    .argument('<file>', 'LAVIS checkpoint; code in it is never run')
    .requiredOption(
      '--base <dir>',
      'model folder with everything else: frozen weights, configuration, tokenizer',
    )
    .requiredOption('--output <dir>', 'new folder for the model')
    .action((file: string, flags: ImportFlags) => importCheckpoint(file, flags, ui));
}

async function importCheckpoint(file: string, { base, output }: ImportFlags, ui: Ui): Promise<void> {
  const { imported, kept } = await importLavis(file, modelDir(base), output);
  ui.result(
    { output, imported, kept },
    `${output}: ${imported.length} tensors from ${file}, ${kept} from ${base}`,
  );
}
