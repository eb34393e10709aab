/** How a plan is printed: the table of `blip2 plan`, and the lines before a run. */
import { duration, gigabytes, planOfRun } from '@blip2/trainer';
import type { Fits, LeftOut, Plan, Planned, PresetPlan, TimeParts } from '@blip2/trainer';
import { paint } from './printable';
import type { Ui } from './ui';
import { columns } from './ui';

const FITS: Readonly<Record<Fits, string>> = { yes: 'yes', slow: 'slowly', no: 'no' };

/** The table, then what is to be known about each row. */
export function describePlan({ presets, facts, left_out }: Plan & { left_out: LeftOut[] }): string {
  const { data, machine } = facts;
  const about = [
    `${count(data.rows)} rows for training, ${count(data.validation)} for validation, ${count(data.final)} for the final table; ${count(data.pictures)} pictures`,
    `${gigabytes(machine.memory)} of memory; ${machine.backend}, ${machine.precision}`,
  ];
  const head = ['', 'preset', 'trained', 'memory', 'fits', 'disk', 'epoch', 'in all'];
  const rows = presets.map((row) => [
    row.recommended ? '→' : ' ',
    row.name,
    short(row.parameters),
    gigabytes(row.memory.peak),
    FITS[row.fits],
    gigabytes(row.disk.total - row.disk.model),
    ...timeCells(row),
  ]);
  return [
    ...about.map((line) => paint.dim(line)),
    '',
    columns([head, ...rows]),
    '',
    ...notes(presets, facts),
    ...left_out.map(
      ({ preset, why }) => `${paint.yellow('!')} ${preset} cannot have these settings: ${why.split('\n')[0]}`,
    ),
  ].join('\n');
}

/** A number of parameters in at most seven characters. */
function short(numbers: number): string {
  if (numbers < 1e6) return count(numbers);
  return numbers < 1e9 ? `${(numbers / 1e6).toFixed(1)} M` : `${(numbers / 1e9).toFixed(2)} G`;
}

function timeCells({ time }: PresetPlan): string[] {
  return time ? [duration(time.cold.epoch), duration(time.cold.total)] : ['–', '–'];
}

function notes(presets: readonly PresetPlan[], { data, model }: Plan['facts']): string[] {
  const best = presets.find(({ recommended }) => recommended !== undefined);
  const width = Math.max(...presets.map(({ name }) => name.length));
  return [
    ...(best ? [`recommended: ${paint.bold(best.preset)}; ${best.recommended}`] : noneFits(presets)),
    ...presets.flatMap(({ name, trains, when }) => [
      `  ${name.padEnd(width)}  trains ${trains}`,
      `  ${' '.repeat(width)}  for ${when}`,
    ]),
    ...presets.flatMap(({ name, notes }) => notes.map((note) => `${paint.yellow('!')} ${name}: ${note}`)),
    ...(presets.some(({ time }) => !time) ? ['–: not timed, because it cannot fit'] : []),
    ...(data.estimated ? ['text lengths are estimated from characters, because there is no tokenizer'] : []),
    `memory: the peak, of which ${gigabytes(presets[0].memory.mapped)} are weights in their files`,
    `disk: features, rounded weights (int8, int4), checkpoints and the result, beside ${gigabytes(model.bytes)} for the model`,
    'in all: with loading, features, rounding weights, evaluations, checkpoints and the final table',
  ];
}

function noneFits(presets: readonly PresetPlan[]): string[] {
  if (presets.some(({ fits }) => fits === 'yes')) return [];
  const what = presets.length > 1 ? 'none of the presets fits' : 'this run does not fit';
  const slow = presets.some(({ fits }) => fits === 'slow')
    ? ' without reading weights from disk at every step'
    : '';
  return [paint.red(`${what} this machine${slow}`)];
}

/** Measures a run that is about to start, and prints a line or two. A plan that cannot be made does not stop the run. */
export async function logRunPlan(planned: Planned, signal: AbortSignal, ui: Ui): Promise<void> {
  if (signal.aborted) return;
  try {
    ui.log(describeRun(await planOfRun(planned)));
  } catch (error) {
    ui.log(`plan: none (${(error as Error).message.split('\n')[0]})`);
  }
}

export function describeRun(row: PresetPlan): string {
  const { disk, time, memory, fits, notes } = row;
  const parts = [
    `${count(row.parameters)} parameters`,
    `${time ? '' : 'at least '}${gigabytes(memory.peak)} of memory`,
    `${gigabytes(disk.total - disk.model)} of disk${cacheText(disk)}`,
    ...(time
      ? [`${duration(time.cold.total)} (${duration(time.cold.epoch)} per epoch${onceText(time.cold)})`]
      : ['time: see npx blip2 plan']),
  ];
  const warning = fits === 'yes' ? [] : [paint.red('this run does not fit this machine')];
  return [
    `plan: ${parts.join(', ')}`,
    ...warning,
    ...notes.map((note) => `  ${paint.yellow('!')} ${note}`),
  ].join('\n');
}

const onceText = ({ features, rounding }: TimeParts) =>
  [
    features > 0 ? `, ${duration(features)} for features` : '',
    rounding > 0 ? `, ${duration(rounding)} to round weights` : '',
  ].join('');
function cacheText({ features, rounded }: PresetPlan['disk']): string {
  const parts = [
    ...(features > 0 ? [`${gigabytes(features)} are features`] : []),
    ...(rounded > 0 ? [`${gigabytes(rounded)} ${features > 0 ? '' : 'are '}rounded weights`] : []),
  ];
  return parts.length > 0 ? ` (${parts.join(', ')})` : '';
}
const count = (n: number) => n.toLocaleString('en');
