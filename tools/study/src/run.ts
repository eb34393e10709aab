/** Runs the cells that are left in several processes of one thread each. Every finished cell is one line of a file. */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { DATA } from './data';
import type { Cell, Result } from './grid';
import { cellsLeft, nameOf, secondsFor, workLeft } from './grid';

export interface RunOptions {
  /** folder of the results, the feature cache and the runs */
  work: string;
  processes: number;
  /** only cells whose name holds this text */
  only: string;
  /** the program that runs a cell for each message: `bin.js` */
  program: string;
  /** makes the data sets; specs pass another function */
  make?: () => Promise<unknown>;
  say: (text: string) => void;
}

const makeData = async () => {
  for (const { make } of Object.values(DATA)) await make();
};

const fileOf = (work: string) => join(work, 'results.jsonl');

/** The finished cells; a last line without its end is left out. */
export async function readResults(work: string): Promise<Result[]> {
  const text = await readFile(fileOf(work), 'utf8').catch(() => '');
  return text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Result);
}

/** Cuts off the part of a line that a kill left at the end. */
async function cutToLines(file: string): Promise<void> {
  const text = await readFile(file, 'utf8').catch(() => '');
  if (!text.endsWith('\n') && text !== '') await writeFile(file, text.slice(0, text.lastIndexOf('\n') + 1));
}

/** Runs what is left. Ends when nothing is, or with the error of a cell. */
export async function runLeft(o: RunOptions): Promise<void> {
  await mkdir(o.work, { recursive: true });
  await cutToLines(fileOf(o.work));
  const left = async () =>
    cellsLeft(await readResults(o.work)).filter((cell) => nameOf(cell).includes(o.only));
  if ((await left()).length === 0) return;
  await (o.make ?? makeData)();
  const running = new Set<string>();
  const ended = new AbortController();
  const worker = async () => {
    const child = start(o);
    try {
      while (!ended.signal.aborted) {
        const cell = (await left()).find((one) => !running.has(nameOf(one)));
        if (cell) {
          running.add(nameOf(cell));
          await record(o, await runIn(child, cell));
          running.delete(nameOf(cell));
        } else if (running.size === 0) return;
        else await setTimeout(POLL); // a cell that runs elsewhere may decide the learning rate of others
      }
    } finally {
      ended.abort();
      child.kill();
    }
  };
  await Promise.all(Array.from({ length: o.processes }, worker));
}

/** Milliseconds between looks at what others have finished. */
const POLL = 200;

const start = ({ program, work }: RunOptions): ChildProcess =>
  fork(program, ['worker', '--work', work], { env: { ...process.env, BLIP2_NUM_THREADS: '1' } });

async function record({ work, say }: RunOptions, result: Result): Promise<void> {
  await appendFile(fileOf(work), JSON.stringify(result) + '\n');
  const results = await readResults(work);
  const left = workLeft(results);
  const minutes = secondsFor(left, results) / 60;
  const scores = Object.entries(result.scores).map(([name, value]) => `${name} ${value}`);
  say(`${nameOf(result)}: ${scores.join(', ')}; ${result.seconds.toFixed(0)} s`);
  say(`${left.length} runs left, about ${minutes.toFixed(0)} minutes of one core`);
}

/** Sends a cell to a process and waits for its result. */
function runIn(child: ChildProcess, cell: Cell): Promise<Result> {
  return new Promise((resolve, reject) => {
    const ended = (code: number | null) =>
      reject(new Error(`${nameOf(cell)}: the process ended with ${code}`));
    child.once('exit', ended);
    child.once('message', (message: { result?: Result; error?: string }) => {
      child.off('exit', ended);
      if (message.result) resolve(message.result);
      else reject(new Error(`${nameOf(cell)}: ${message.error}`));
    });
    child.send(cell);
  });
}
