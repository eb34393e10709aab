/** Commands of blip2 as child processes: whatever they do, the server answers. */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { EventEmitter } from 'node:events';

export interface Job {
  /** the last lines that it printed to stderr */
  log: string[];
  /** how many lines were printed in all */
  lines: number;
  /** undefined while it runs; 130 after an interrupt */
  code?: number;
  /** what it printed to stdout */
  output: string;
  /** emits `change` */
  events: EventEmitter<{ change: [] }>;
  /** as Ctrl-C; a second one ends it at once */
  interrupt(): void;
  ended: Promise<void>;
}

const MOST_LINES = 500;
/** Characters of a line that are kept. */
const MOST_LINE = 16 << 10;
/** Characters of a result that are kept. */
const MOST_OUTPUT = 16 << 20;

/** @param command the program and its first arguments, such as node and the file of the command */
export function startJob(command: readonly string[], args: readonly string[], cwd: string): Job {
  const [program, ...first] = command;
  // in a process group of its own, so that Ctrl-C in the terminal reaches it only once, through studio
  const child = spawn(program, [...first, ...args], {
    cwd,
    detached: process.platform !== 'win32',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, NO_COLOR: '1', FORCE_COLOR: '0' },
  });
  const events = new EventEmitter<{ change: [] }>();
  events.setMaxListeners(0);
  const job: Job = {
    log: [],
    lines: 0,
    output: '',
    events,
    interrupt: () => void child.kill('SIGINT'),
    ended: new Promise((resolve) => events.on('change', () => job.code !== undefined && resolve())),
  };
  collect(child, job);
  return job;
}

function collect(child: ChildProcess, job: Job): void {
  let rest = '';
  const add = (lines: string[]) => {
    if (lines.length === 0) return;
    job.log = [...job.log, ...lines].slice(-MOST_LINES);
    job.lines += lines.length;
    job.events.emit('change');
  };
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    job.output += text.slice(0, MOST_OUTPUT - job.output.length);
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    const lines = (rest + text).split('\n').map((line) => line.slice(0, MOST_LINE));
    rest = lines.pop()!;
    add(lines);
  });
  const end = (code: number, lines: string[]) => {
    if (job.code !== undefined) return;
    job.code = code;
    add([rest, ...lines].filter((line) => line !== ''));
    job.events.emit('change');
  };
  child.on('error', (error) => end(1, [`error: the command cannot be started: ${error.message}`]));
  child.on('close', (code, signal) =>
    end(code ?? (signal === 'SIGINT' ? 130 : 1), signal ? [`ended by ${signal}`] : []),
  );
}

/** The lines of the log from number `from` on, as far as they are kept. */
export const linesFrom = ({ log, lines }: Job, from: number): string[] =>
  from >= lines ? [] : log.slice(Math.max(0, log.length - (lines - from)));

/** The last error that the command printed, or its last line. */
export function errorOf({ log }: Job): string {
  const at = log.findLastIndex((line) => line.startsWith('error: '));
  return (at < 0 ? log.slice(-1) : log.slice(at)).join('\n').replace(/^error: /, '');
}
