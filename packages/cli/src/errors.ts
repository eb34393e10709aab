/** Prints errors for users: at most one screen, with a stack trace only if requested. */
import { CommanderError } from 'commander';
import { paint } from './printable';
import { withErrorNames } from './system-errors';
import type { Ui } from './ui';

/** An invalid command line: exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** The user stopped the run; it can be resumed. Without a message nothing is printed. */
export class Interrupted extends Error {
  override name = 'Interrupted';
}

/** A failure whose details are already in the printed result; adds a last line and the exit code. */
export class Printed extends Error {
  override name = 'Printed';
}

const LINES = 30;
const WIDTH = 1000;

/** Errors that indicate a bug, since no input should cause them. */
const BUGS = ['TypeError', 'RangeError', 'ReferenceError', 'SyntaxError'];

/** Prints an error and returns its exit code. */
export function report(error: unknown, ui: Ui, verbose: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // already printed by commander
  if (error instanceof Interrupted && !error.message) return 130;
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  if (ui.json && !(error instanceof Printed))
    ui.result({ error: { name, message: withErrorNames(message) } }, '');
  if (error instanceof Interrupted) ui.log(message);
  else ui.log(`${paint.red('error:')} ${verbose ? message : oneScreen(message)}`);
  if (verbose && stack) ui.log(paint.dim(stack));
  else if (BUGS.includes(name))
    ui.log(`This ${name} may be a bug in blip2; --verbose prints the stack trace.`);
  if (error instanceof Interrupted) return 130; // as a shell reports Ctrl-C
  return error instanceof UsageError ? 2 : 1;
}

function oneScreen(message: string): string {
  const lines = message.split('\n').map((line) => (line.length > WIDTH ? `${line.slice(0, WIDTH)} …` : line));
  if (lines.length <= LINES) return lines.join('\n');
  return [
    ...lines.slice(0, LINES - 1),
    `… ${lines.length - LINES + 1} more lines; --verbose prints all`,
  ].join('\n');
}
