/** `blip2 quantize`: writes a checkpoint with weights of 8 or 4 bits. */
import type { Command } from 'commander';
import { bitsOf } from '@blip2/blip2';
import { loadConfig, MOST_ERRORS, quantiseFolder, ScratchWeights } from '@blip2/blip2/node';
import type { QuantisedFormat, QuantiseOptions, WrittenQuantised } from '@blip2/blip2/node';
import { useBackend } from '@blip2/nn/node';
import { join } from 'node:path';
import { MODEL_FOLDER, newFolder } from '@blip2/weights/node';
import { UsageError } from '../errors';
import { modelDir } from '../model';
import { command } from '../options';
import { compareModels, fitLayers, measureLayers, openRows } from '../quantise-report';
import type { Agreement, Rows } from '../quantise-report';
import type { Ui } from '../ui';

interface QuantizeFlags {
  model: string;
  bits: string;
  format?: string;
  output: string;
  data?: string;
  report?: boolean;
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
    .option(
      '--data <path>',
      'captioned pictures: int4 is fitted to 128 of them (GPTQ), and layers that lose too much keep 8 bits, or their exact weights',
    )
    .option('--report', 'compare the result with the model on these pictures: loss, tokens, worst layers')
    .action((flags: QuantizeFlags) => quantize(flags, ui));
}

async function quantize({ model, bits, format: wanted, output, data, report }: QuantizeFlags, ui: Ui) {
  const format = formatOf(bits, wanted);
  if (report && data === undefined) throw new UsageError('--report: expected --data with it');
  const dir = modelDir(model);
  const rows = data === undefined ? undefined : await openRows(model, data, ui);
  let written: WrittenQuantised = new Map();
  let agreement: Agreement | undefined;
  let layers: Layers | undefined;
  await newFolder(output, MODEL_FOLDER, async (at) => {
    const fitted = rows && format === 'int4' ? new ScratchWeights(join(at, 'fitted-weights')) : undefined;
    try {
      layers = rows && (await measured(dir, format, rows, fitted, ui));
      if (format === 'int4') await useBackend('native');
      written = await quantiseFolder(dir, at, {
        format,
        ...layers?.chosen,
        made: fitted && ((name) => fitted.read(name)),
        onProgress: (done, total) =>
          ui.progress('quantise', `writing tensor ${done} of ${total}`, done === total),
      });
    } finally {
      fitted?.remove();
    }
    if (report) agreement = await compareModels(dir, at, rows!, fitted !== undefined, ui);
  });
  const weights = countsOf(written);
  const { worst, chosen, text } = layers ?? {};
  ui.result({ output, format, weights, ...chosen, ...(report && { ...agreement, worst, text }) }, () => {
    const parts = Object.entries(weights).map(([name, n]) => `${n} in ${name}`);
    const lines = [`quantised model: ${output} (matrices: ${parts.join(', ')})`];
    if (layers) lines.push(...layerLines(layers));
    if (agreement) lines.push(...agreementLines(agreement));
    return lines.join('\n');
  });
}

function formatOf(bits: string, wanted: string | undefined): QuantisedFormat {
  const formats = FORMATS[bits];
  if (!formats) throw new UsageError(`--bits: expected 8 or 4, found "${bits}"`);
  const format = formats.find((name) => name === (wanted ?? formats[0]));
  if (!format)
    throw new UsageError(`--format: expected ${formats.join(' or ')} for ${bits} bits, found "${wanted}"`);
  return format;
}

function countsOf(written: WrittenQuantised): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of written.values()) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

interface Layers {
  chosen: Pick<QuantiseOptions, 'exact' | 'eight'>;
  /** Relative errors of outputs, the largest first. */
  worst: { name: string; error: number }[];
  /** Of the layers that were fitted: their mean error, with plain rounding and as they are. */
  text?: { plain: number; fitted: number };
}

/**
 * A layer that loses more than MOST_ERRORS in 4 bits keeps 8, and in 8 bits its exact weights. Layers in int4 are fitted, into `made`. The
 * formats of bitsandbytes are not fitted; the errors of nf4 are measured as int4, which is as coarse.
 */
async function measured(
  dir: string,
  format: QuantisedFormat,
  rows: Rows,
  made: ScratchWeights | undefined,
  ui: Ui,
): Promise<Layers> {
  const text_bits = format === 'int8' ? 8 : 4;
  const config = await loadConfig(dir);
  const fitted = made && (await fitLayers(dir, config, rows, made, ui));
  const only = made && ((name: string) => bitsOf(name, 4) === 8);
  const { errors } = await measureLayers(dir, config, rows, { text_bits, only }, ui);
  const list = [
    ...[...errors].map(([name, { plain }]) => ({ name, bits: bitsOf(name, text_bits), error: plain })),
    ...[...(fitted ?? [])].map(([name, { chosen }]) => ({ name, bits: 4 as const, error: chosen })),
  ];
  list.sort((a, b) => b.error - a.error);
  const worst = list.map(({ name, error }) => ({ name, error }));
  const above = (bits: 8 | 4) =>
    list
      .filter((layer) => layer.bits === bits && !(layer.error <= MOST_ERRORS[bits]))
      .map(({ name }) => name);
  const [exact, eight] = [above(8), above(4)];
  if (!fitted) return { worst, chosen: { exact: [...exact, ...eight], eight: [] } };
  const text = {
    plain: mean([...fitted.values()].map(({ plain }) => plain)),
    fitted: mean([...fitted.values()].map(({ chosen }) => chosen)),
  };
  return { worst, chosen: { exact, eight }, text };
}

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

const percent = (x: number) => `${(100 * x).toFixed(2)} %`;

function layerLines({ worst, text, chosen: { exact = [], eight = [] } }: Layers): string[] {
  return [
    ...(text
      ? [`in 4 bits, fitted to the pictures: ${percent(text.fitted)}; plain rounding: ${percent(text.plain)}`]
      : []),
    `outputs of ${worst.length} layers change by ${percent(mean(worst.map(({ error }) => error)))} in the mean; the worst:`,
    ...worst.slice(0, 5).map(({ name, error }) => `  ${percent(error)}  ${name}`),
    `${eight.length} layers kept 8 bits instead of 4, ${exact.length} their exact weights`,
  ];
}

function agreementLines({ rows, loss, same_tokens, plain_same_tokens }: Agreement): string[] {
  const line =
    `on ${rows} other rows: loss ${loss.quantised.toFixed(4)} (${loss.exact.toFixed(4)} before), ` +
    `${percent(same_tokens)} of the likeliest tokens are the same`;
  if (plain_same_tokens === undefined) return [line];
  return [
    line,
    `with plain rounding: loss ${loss.plain!.toFixed(4)}, ${percent(plain_same_tokens)} of the tokens`,
  ];
}
