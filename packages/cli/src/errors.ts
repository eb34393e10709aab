/** Errors as users meet them: one screen, no stack trace unless asked for. */
import { CommanderError } from 'commander';
import type { Ui } from './ui';

/** The command line cannot be understood: exit code 2. */
export class UsageError extends Error {
  override name = 'UsageError';
}

/** Work was stopped by the user, and can be continued. */
export class Interrupted extends Error {
  override name = 'Interrupted';
}

/** What failed stands in the result that was printed; only the exit code and a last line are missing. */
export class Printed extends Error {
  override name = 'Printed';
}

const LINES = 30;
const WIDTH = 1000;

/** Errors that no input should cause. */
const DEFECTS = ['TypeError', 'RangeError', 'ReferenceError', 'SyntaxError'];

/** Prints an error and returns the exit code that goes with it. */
export function report(error: unknown, ui: Ui, verbose: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2; // commander has printed it
  const { name, message, stack } = error instanceof Error ? error : new Error(String(error));
  if (ui.json && !(error instanceof Printed)) ui.result({ error: { name, message } }, '');
  if (error instanceof Interrupted) ui.log(message);
  else ui.log(`${ui.paint.red('error:')} ${verbose ? message : oneScreen(message)}`);
  if (verbose && stack) ui.log(ui.paint.dim(stack));
  else if (DEFECTS.includes(name))
    ui.log(`This ${name} may be a defect of blip2; --verbose shows where it comes from.`);
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
