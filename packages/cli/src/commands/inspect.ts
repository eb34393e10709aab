/** `blip2 inspect`: shows the contents of a model, a preset, a data set or an adapter. */
import { Command } from 'commander';
import { inspectAdapter } from '../inspect/adapter';
import { inspectLabels } from '../inspect/labels';
import type { LabelFlags } from '../inspect/labels';
import { inspectModel } from '../inspect/model';
import { inspectParams } from '../inspect/params';
import type { ParamFlags } from '../inspect/params';
import { command, layoutOptions, positive } from '../options';
import type { Ui } from '../ui';

export function inspectCommand(ui: Ui): Command {
  return new Command('inspect')
    .description('Show the contents of a model, a preset, a data set or an adapter.')
    .addHelpText('after', '\nExample:\n  $ blip2 inspect params --preset lora')
    .addCommand(modelCommand(ui))
    .addCommand(paramsCommand(ui))
    .addCommand(labelsCommand(ui))
    .addCommand(adapterCommand(ui));
}

function modelCommand(ui: Ui): Command {
  return command(
    'model',
    'Parts, parameters and storage of a checkpoint.',
    'blip2 inspect model models/blip2-emoji-mini',
  )
    .argument('<dir>', 'checkpoint folder')
    .action((dir: string) => inspectModel(dir, ui));
}

function paramsCommand(ui: Ui): Command {
  return command(
    'params',
    'Count the parameters that a preset trains; needs no weights.',
    'blip2 inspect params --preset lora',
  )
    .option('--preset <name>', 'preset to count', 'lora')
    .option('--model <dir>', 'read the sizes from its config.json (default: blip2-opt-2.7b)')
    .option('--r <n>', 'LoRA rank', positive)
    .option('--target-modules <names>', 'LoRA targets, separated by commas', (text) => text.split(','))
    .option('--list', 'also list the trained modules and tensors')
    .action((flags: ParamFlags) => inspectParams(flags, ui));
}

function labelsCommand(ui: Ui): Command {
  const labels = command(
    'labels',
    'Tokens and labels of the first rows, as they are used in training.',
    'blip2 inspect labels --data data/emoji/people --model models/blip2-emoji-mini --rows 1',
  );
  return layoutOptions(labels)
    .requiredOption('--data <path>', 'the data set')
    .requiredOption('--model <dir>', 'checkpoint folder, for its tokenizer')
    .option('--rows <n>', 'number of rows', positive, 2)
    .option('--split <name>', 'split to read')
    .option('--prompt <text>', 'text before every caption, or the template of questions')
    .option('--task <name>', 'caption or vqa (default: vqa if the rows have questions)')
    .action((flags: LabelFlags) => inspectLabels(flags, ui));
}

function adapterCommand(ui: Ui): Command {
  return command(
    'adapter',
    'Settings and modules of a PEFT adapter.',
    'blip2 inspect adapter runs/emoji-demo/adapter',
  )
    .argument('<dir>', 'adapter folder')
    .action((dir: string) => inspectAdapter(dir, ui));
}
