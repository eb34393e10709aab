/** A plan as the page shows it. */
import { duration, gigabytes } from '@blip2/trainer';
import type { LeftOut, Plan, PresetPlan } from '@blip2/trainer';
import type { PlanRow, PlanTable } from './api';

export function planTable({ presets, facts, left_out }: Plan & { left_out: LeftOut[] }): PlanTable {
  const { data, machine } = facts;
  const count = (n: number) => n.toLocaleString('en');
  return {
    about: [
      `${count(data.rows)} rows for training, ${count(data.validation)} for validation, ${count(data.final)} for the final table; ${count(data.pictures)} pictures`,
      `${gigabytes(machine.memory)} of memory; ${machine.backend}, ${machine.precision}`,
      ...(data.estimated
        ? ['Text lengths are estimated from characters, because there is no tokenizer.']
        : []),
    ],
    rows: presets.map(rowOf),
    left_out,
  };
}

const FITS = { yes: 'yes', slow: 'slowly', no: 'no' } as const;

function rowOf({
  preset,
  name,
  trains,
  when,
  parameters,
  memory,
  disk,
  time,
  fits,
  notes,
  recommended,
}: PresetPlan): PlanRow {
  return {
    preset,
    name,
    trains,
    when,
    fits,
    notes,
    recommended,
    cells: {
      parameters: parameters < 1e6 ? parameters.toLocaleString('en') : `${(parameters / 1e6).toFixed(1)} M`,
      memory: gigabytes(memory.peak),
      fits: FITS[fits],
      disk: gigabytes(disk.total - disk.model),
      'one epoch': time ? duration(time.cold.epoch) : '–',
      'in all': time ? duration(time.cold.total) : '–',
    },
  };
}
