/** How a plan is printed: the table of `blip2 plan`, and the lines before a run. */
import { duration, gigabytes, planOfRun } from '@blip2/trainer';
import type { CachePlan, Fits, Plan, Planned, PresetPlan } from '@blip2/trainer';
import { paint } from './printable';
import type { Ui } from './ui';
import { columns } from './ui';

const FITS: Readonly<Record<Fits, string>> = { yes: 'yes', slow: 'slowly', no: 'no' };

/** The table, then what is to be known about each row. */
export function describePlan({ presets, facts }: Plan): string {
  const { data, machine } = facts;
  const about =
    `${count(data.rows)} rows for training, ${count(data.validation)} for validation, ${count(data.final)} for the final table; ` +
    `${count(data.pictures)} pictures; ${gigabytes(machine.memory)} of memory; ${machine.backend}, ${machine.precision}`;
  const head = [
    '',
    'preset',
    'trains',
    'parameters',
    'memory',
    'fits',
    'disk',
    'first epoch',
    'epoch',
    'in all',
  ];
  const rows = presets.map((row) => [
    row.recommended ? '→' : ' ',
    row.preset,
    row.trains,
    count(row.parameters),
    gigabytes(row.memory.peak),
    FITS[row.fits],
    gigabytes(row.disk.features + row.disk.checkpoints + row.disk.result),
    ...timeCells(row),
  ]);
  return [paint.dim(about), '', columns([head, ...rows]), '', ...notes({ presets, facts })].join('\n');
}

function timeCells({ time }: PresetPlan): string[] {
  if (!time) return ['?', '?', '?'];
  const { features, epoch, total } = time.cold;
  return [duration(features + epoch), duration(epoch), duration(total)];
}

function notes({ presets, facts }: Plan): string[] {
  const best = presets.find(({ recommended }) => recommended !== undefined);
  return [
    best
      ? `recommended: ${paint.bold(best.preset)}; ${best.recommended}`
      : paint.red('none of the presets fits this machine'),
    ...presets.map(({ preset, when }) => `  ${preset.padEnd(18)} ${when}`),
    ...presets.flatMap(({ preset, notes }) => notes.map((note) => `${paint.yellow('!')} ${preset}: ${note}`)),
    ...(facts.data.estimated
      ? ['text lengths are estimated from characters, because there is no tokenizer']
      : []),
    `disk: the features, all checkpoints and the result, beside ${gigabytes(facts.model.bytes)} for the model; the first epoch includes the features, which later runs find`,
  ];
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
  const { disk, time, memory, cache, fits, notes } = row;
  const parts = [
    `${count(row.parameters)} parameters`,
    `${time ? '' : 'at least '}${gigabytes(memory.peak)} of memory`,
    `${gigabytes(disk.features + disk.checkpoints + disk.result)} of disk${cacheText(cache)}`,
    ...(time
      ? [
          `${duration(time.cold.total)} (${duration(time.cold.epoch)} per epoch${featuresText(time.cold.features)})`,
        ]
      : ['time: see npx blip2 plan']),
  ];
  const warning = fits === 'yes' ? [] : [paint.red('this run does not fit this machine')];
  return [
    `plan: ${parts.join(', ')}`,
    ...warning,
    ...notes.map((note) => `  ${paint.yellow('!')} ${note}`),
  ].join('\n');
}

const featuresText = (seconds: number) => (seconds > 0 ? `, ${duration(seconds)} for features` : '');
const cacheText = ({ kept, bytes }: CachePlan) =>
  kept.includes('disk') ? ` (${gigabytes(bytes)} are features)` : '';
const count = (n: number) => n.toLocaleString('en');
