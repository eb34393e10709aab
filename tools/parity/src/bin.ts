#!/usr/bin/env node
// npm run parity -- [CASES_DIR] [--sensitivity]
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { BACKENDS, PRECISIONS } from '@blip2/nn';
import type { BackendName } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { atLeast, listCases, readCase } from './case-file';
import type { Case, Check } from './case-file';
import { runCase } from './run-case';
import type { Row } from './run-case';
import { formatSensitivity, sensitivity } from './sensitivity';
import { formatRows } from './table';
import { writeAll } from './write-all';

const HELP = `Compares this project with golden cases of transformers and PEFT.

  npm run parity -- [CASES_DIR] [options]     CASES_DIR: a folder of cases, or one; default tools/parity/cases

Options
  --backend NAME   auto, ${BACKENDS.join(', ')}        default auto
  --case TEXT      only cases whose folder's name contains it
  --rung NAME      only checks of this rung
  --precision NAME of matmuls                                      default float32
  --tolerance N    the least tolerance of numbers, for a precision that rounds
  --sensitivity    apply one mutation after another and show which checks detect it
  --write DIR      write models and adapters of every kind for check_all.py; runs no check
  --json           print rows as JSON

Exit code: 0 all green, 1 some red, 2 wrong usage`;

async function main(args: string[]): Promise<number> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      backend: { type: 'string', default: 'auto' },
      case: { type: 'string', default: '' },
      rung: { type: 'string' },
      precision: { type: 'string', default: 'float32' },
      tolerance: { type: 'string', default: '0' },
      sensitivity: { type: 'boolean', default: false },
      write: { type: 'string' },
      json: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) return (console.log(HELP), 0);
  const tolerance = Number(values.tolerance);
  if (!(tolerance >= 0))
    throw new Error(`--tolerance: expected a number from 0 on, found ${values.tolerance}`);
  const wanted = PRECISIONS.find((one) => one === values.precision);
  if (!wanted)
    throw new Error(`--precision: expected one of ${PRECISIONS.join(', ')}, found ${values.precision}`);
  const dir = positionals[0] ?? fileURLToPath(new URL('../cases', import.meta.url));
  const folders = (await listCases(dir)).filter((folder) => folder.includes(values.case));
  const { name, precision, tried } = await useBackend(values.backend as BackendName | 'auto', {
    precision: wanted,
  });
  console.error(`${folders.length} cases of ${dir} on backend ${name}, ${precision} (${tried.at(-1)!.why})`);
  if (values.write) return (await writeAll(values.write, folders), 0);
  const cases = await Promise.all(folders.map(readCase));
  const colour = process.stdout.isTTY === true;
  if (values.sensitivity) {
    const results = await sensitivity(cases, (done) => console.error(done));
    console.log(values.json ? JSON.stringify(results, null, 1) : formatSensitivity(results));
    return results.every(({ caught }) => caught.length > 0) ? 0 : 1;
  }
  const rows: Row[] = [];
  const selected = ({ rung }: Check) => !values.rung || rung === values.rung;
  const change = (one: Case) => atLeast(one, tolerance);
  for (const one of cases) rows.push(...(await runCase(one, selected, { case: change })));
  console.log(values.json ? JSON.stringify(rows, null, 1) : formatRows(rows, colour));
  const red = rows.filter(({ ok }) => !ok).length;
  console.error(`${rows.length - red} green, ${red} red`);
  return red === 0 && rows.length > 0 ? 0 : 1;
}

main(process.argv.slice(2)).then(
  (code) => (process.exitCode = code),
  (error: Error & { code?: string }) => {
    const usage = error.code?.startsWith('ERR_PARSE_ARGS');
    console.error(usage ? `${error.message}\n\n${HELP}` : `parity: ${error.message}`);
    process.exitCode = usage ? 2 : 1;
  },
);
