/** Writes results to stdout and everything else to stderr; with --json, stdout has one document. */
import type { Io } from './io';
import { escapeControls, printable } from './printable';
import { withErrorNames } from './system-errors';

/** Seconds between progress lines if stderr is not a terminal. */
const INTERVAL = 10;

export class Ui {
  private live = false;
  private current = { name: '', time: 0 };

  constructor(
    readonly io: Io,
    readonly json: boolean,
    /** the command line, which is saved with a run */
    readonly argv: readonly string[] = [],
  ) {}

  /** The same command line, which prints nothing. */
  silenced(): Ui {
    const nothing = () => undefined;
    return new Ui({ ...this.io, stdout: nothing, stderr: nothing }, this.json, this.argv);
  }

  /** Prints a message to stderr. */
  log(text: string): void {
    this.clear();
    this.error(text + '\n');
  }

  /**
   * Prints progress. On a terminal, one line is rewritten. Otherwise a new line is printed every few seconds
   * for each `name`, and always for the last one.
   */
  progress(name: string, text: string, last = false): void {
    if (this.io.terminal) {
      this.io.stderr(`\r${printable(text, false).slice(0, this.io.columns - 1)}\x1b[K`);
      this.live = true;
      return;
    }
    const now = performance.now() / 1000;
    if (name !== this.current.name) this.current = { name, time: now };
    if (!last && now - this.current.time < INTERVAL) return;
    this.error(text + '\n');
    this.current.time = now;
  }

  /** Prints the command's result: a JSON document with --json, otherwise text. */
  result(value: unknown, text: string | (() => string)): void {
    this.clear();
    if (this.json) this.io.stdout(escapeControls(JSON.stringify(value, null, 2)) + '\n');
    else this.write((typeof text === 'string' ? text : text()) + '\n');
  }

  /** Writes to stdout without a line feed. */
  write(text: string): void {
    this.io.stdout(printable(text, this.io.colour.stdout));
  }

  /** Writes to stderr without a line feed. */
  error(text: string): void {
    this.io.stderr(printable(withErrorNames(text), this.io.colour.stderr && !this.json));
  }

  private clear(): void {
    if (this.live) this.io.stderr('\r\x1b[K');
    this.live = false;
  }
}

/** Aligns rows in columns, with numbers to the right. */
export function columns(rows: (string | number)[][], gap = '  '): string {
  const cells = rows.map((row) =>
    row.map((cell) => (typeof cell === 'number' ? cell.toLocaleString('en') : cell)),
  );
  const widths = cells[0]?.map((_, at) => Math.max(...cells.map((row) => row[at]?.length ?? 0))) ?? [];
  const pad = (cell: string, row: number, at: number) =>
    typeof rows[row][at] === 'number' ? cell.padStart(widths[at]) : cell.padEnd(widths[at]);
  return cells
    .map((row, r) =>
      row
        .map((cell, at) => pad(cell, r, at))
        .join(gap)
        .trimEnd(),
    )
    .join('\n');
}

export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, count)) / 10));
  return `${(count / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

export function seconds(count: number): string {
  if (count < 60) return `${count.toFixed(count < 10 ? 1 : 0)} s`;
  if (count < 3600)
    return `${Math.floor(count / 60)} min ${String(Math.floor(count % 60)).padStart(2, '0')} s`;
  return `${Math.floor(count / 3600)} h ${String(Math.floor((count % 3600) / 60)).padStart(2, '0')} min`;
}
