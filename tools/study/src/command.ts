/** The subcommands. */
import { parseArgs } from 'node:util';
import { machineText } from '@blip2/bench';
import { runCell } from './cell';
import { readSummary, writeDocuments, writeSummary } from './document';
import type { Cell } from './grid';
import { cellsLeft, nameOf, secondsFor, workLeft } from './grid';
import { readResults, runLeft } from './run';
import { summarize } from './summary';

const HELP = `Measures which parts of the small base to train, for how many pictures: docs/which-layers.md.

  npm run study -- run [--processes 2] [--only TEXT]   measure what is left; each finished run is a line of WORK/results.jsonl
  npm run study -- left [--only TEXT]                  show what is left, and its time
  npm run study -- collect                             the finished runs to docs/which-layers/results.json, then render
  npm run study -- render                              tables and pictures from docs/which-layers/results.json
  npm run study                                        run, collect, render

  --work DIR    default runs/study`;

const OPTIONS = {
  work: { type: 'string', default: 'runs/study' },
  processes: { type: 'string', default: '2' },
  only: { type: 'string', default: '' },
  help: { type: 'boolean', default: false },
} as const;

export async function main(args: readonly string[], program: string): Promise<void> {
  const { values, positionals } = parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
  const [name = 'all'] = positionals;
  const { work, only } = values;
  const say = (text: string) => console.error(text);
  const run = () => runLeft({ work, only, processes: Number(values.processes), program, say });
  const commands: Record<string, () => unknown> = {
    help: () => console.log(HELP),
    worker: () => runSent(work),
    left: () => left(work, only),
    run,
    collect: () => collect(work),
    render: async () => writeDocuments(await readSummary()),
    all: async () => {
      await run();
      await collect(work);
    },
  };
  const command = commands[values.help ? 'help' : name];
  if (!command)
    throw new Error(`study: expected one of ${Object.keys(commands).join(', ')}, found "${name}"`);
  await command();
}

/** Writes the finished runs and what is made of them to docs. */
async function collect(work: string): Promise<void> {
  const about = { date: new Date().toISOString().slice(0, 10), machine: machineText() };
  const summary = summarize(await readResults(work), about);
  await writeSummary(summary);
  await writeDocuments(summary);
}

async function left(work: string, only: string): Promise<void> {
  const results = await readResults(work);
  const cells = cellsLeft(results).filter((cell) => nameOf(cell).includes(only));
  for (const cell of cells) console.log(nameOf(cell));
  const all = workLeft(results);
  const minutes = (secondsFor(all, results) / 60).toFixed(0);
  console.log(
    `${cells.length} runs can start now; ${all.length} are left in all, about ${minutes} minutes of one core`,
  );
}

/** Runs the cells that the parent sends, until it goes away. */
function runSent(work: string): void {
  process.on('disconnect', () => process.exit());
  process.on('message', (cell: Cell) => {
    runCell(cell, work).then(
      (result) => process.send!({ result }),
      (error: Error) => process.send!({ error: error.message }),
    );
  });
}
