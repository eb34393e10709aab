/** `blip2 quantize`: writes a checkpoint with weights of 8 or 4 bits. */
import type { Command } from 'commander';
import { quantiseFolder } from '@blip2/blip2/node';
import type { QuantisedFormat, WrittenQuantised } from '@blip2/blip2/node';
import { useBackend } from '@blip2/nn/node';
import { MODEL_FOLDER, newFolder } from '@blip2/weights/node';
import { UsageError } from '../errors';
import { modelDir } from '../model';
import { command } from '../options';
import type { Ui } from '../ui';

interface QuantizeFlags {
  model: string;
  bits: string;
  format?: string;
  output: string;
}

/** The formats of each number of bits; the first is the default. */
const FORMATS: Readonly<Record<string, readonly QuantisedFormat[]>> = { 8: ['int8'], 4: ['int4', 'nf4'] };

export function quantizeCommand(ui: Ui): Command {
  return command(
    'quantize',
    'Write a checkpoint with weights of 8 or 4 bits, which every command loads.',
    'blip2 quantize --model models/blip2-emoji-mini --bits 8 --output blip2-emoji-8bit',
  )
    .requiredOption('--model <dir>', 'checkpoint folder')
    .requiredOption('--bits <n>', '8: int8 of bitsandbytes, which transformers loads too; 4: see --format')
    .option(
      '--format <name>',
      'of 4 bits: int4 is fast here, and only here (vision tower and Q-Former in 8 bits); nf4 of bitsandbytes is loaded by transformers too',
    )
    .requiredOption('--output <dir>', 'new folder for the quantised checkpoint')
    .action((flags: QuantizeFlags) => quantize(flags, ui));
}

async function quantize({ model, bits, format: wanted, output }: QuantizeFlags, ui: Ui): Promise<void> {
  const format = formatOf(bits, wanted);
  if (format === 'int4') await useBackend('native');
  let written: WrittenQuantised = new Map();
  await newFolder(output, MODEL_FOLDER, async (at) => {
    written = await quantiseFolder(modelDir(model), at, {
      format,
      onProgress: (done, total) => ui.progress('quantise', `quantising ${done} of ${total}`, done === total),
    });
  });
  const counts: Record<string, number> = {};
  for (const name of written.values()) counts[name] = (counts[name] ?? 0) + 1;
  const parts = Object.entries(counts).map(([name, n]) => `${n} in ${name}`);
  ui.result(
    { output, format, weights: counts },
    `quantised model: ${output} (matrices: ${parts.join(', ')})`,
  );
}

function formatOf(bits: string, wanted: string | undefined): QuantisedFormat {
  const formats = FORMATS[bits];
  if (!formats) throw new UsageError(`--bits: expected 8 or 4, found "${bits}"`);
  const format = formats.find((name) => name === (wanted ?? formats[0]));
  if (!format)
    throw new UsageError(`--format: expected ${formats.join(' or ')} for ${bits} bits, found "${wanted}"`);
  return format;
}
