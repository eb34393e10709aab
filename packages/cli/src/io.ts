/** Input and output of the command, which tests replace. */
import { availableParallelism } from 'node:os';
import { text } from 'node:stream/consumers';

export interface Io {
  stdout(text: string): void;
  stderr(text: string): void;
  /** reads standard input to its end */
  stdin(): Promise<string>;
  /** whether stderr is a terminal, where the progress line can be rewritten */
  terminal: boolean;
  columns: number;
  /** whether text for each stream may be coloured */
  colour: { stdout: boolean; stderr: boolean };
  env: Record<string, string | undefined>;
  /**
   * Runs the callback at each Ctrl-C, SIGTERM or SIGUSR2 (which mpirun and Slurm pass on to all ranks), until the returned function is called; also, if it has not run yet, when the
   * terminal is closed (SIGHUP) or nobody reads stderr any more.
   */
  onInterrupt(callback: () => void): () => void;
  /** Ends the process immediately, at the second Ctrl-C. */
  exit(code: number): void;
}

const STOP = ['SIGINT', 'SIGTERM', 'SIGUSR2'] as const;

export function processIo(): Io {
  const { env, stdout, stderr } = process;
  return {
    stdout: (written) => write(stdout, written),
    stderr: (written) => write(stderr, written),
    stdin: () => text(process.stdin),
    terminal: stderr.isTTY === true,
    columns: stderr.columns ?? 80,
    colour: { stdout: colour(env, stdout), stderr: colour(env, stderr) },
    env,
    onInterrupt: (callback) => {
      let calls = 0;
      const stop = () => {
        calls++;
        callback();
      };
      const gone = () => void (calls === 0 && stop());
      for (const signal of STOP) process.on(signal, stop);
      process.on('SIGHUP', gone);
      stderr.on('error', gone);
      return () => {
        for (const signal of STOP) process.off(signal, stop);
        process.off('SIGHUP', gone);
        stderr.off('error', gone);
      };
    },
    exit: (code) => process.exit(code),
  };
}

/** A file or device that is full throws at once, a pipe reports it later; both become the stream's event. */
function write(stream: NodeJS.WriteStream, text: string): void {
  try {
    stream.write(text);
  } catch (error) {
    stream.emit('error', error);
  }
}

/** As in Node: FORCE_COLOR wins over NO_COLOR, and both win over the kind of stream. */
function colour({ FORCE_COLOR, NO_COLOR, TERM }: Io['env'], { isTTY }: { isTTY?: boolean }): boolean {
  if (FORCE_COLOR) return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false';
  return !NO_COLOR && TERM !== 'dumb' && isTTY === true;
}

/** Number of processor cores that this process may use. */
export const cores = availableParallelism();
