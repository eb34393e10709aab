/** Input and output of the command, which tests replace. */
import { availableParallelism } from 'node:os';

export interface Io {
  stdout(text: string): void;
  stderr(text: string): void;
  /** whether stderr is a terminal, where the progress line can be rewritten */
  terminal: boolean;
  columns: number;
  /** whether text for each stream may be coloured */
  colour: { stdout: boolean; stderr: boolean };
  env: Record<string, string | undefined>;
  /** Runs the callback at each Ctrl-C, until the returned function is called. */
  onInterrupt(callback: () => void): () => void;
  /** Ends the process immediately, at the second Ctrl-C. */
  exit(code: number): void;
}

export function processIo(): Io {
  const { env, stdout, stderr } = process;
  return {
    stdout: (text) => void stdout.write(text),
    stderr: (text) => void stderr.write(text),
    terminal: stderr.isTTY === true,
    columns: stderr.columns ?? 80,
    colour: { stdout: colour(env, stdout), stderr: colour(env, stderr) },
    env,
    onInterrupt: (callback) => {
      process.on('SIGINT', callback);
      process.on('SIGTERM', callback);
      return () => void process.off('SIGINT', callback).off('SIGTERM', callback);
    },
    exit: (code) => process.exit(code),
  };
}

/** As in Node: FORCE_COLOR wins over NO_COLOR, and both win over the kind of stream. */
function colour({ FORCE_COLOR, NO_COLOR, TERM }: Io['env'], { isTTY }: { isTTY?: boolean }): boolean {
  if (FORCE_COLOR) return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false';
  return !NO_COLOR && TERM !== 'dumb' && isTTY === true;
}

/** Number of processor cores that this process may use. */
export const cores = availableParallelism();
