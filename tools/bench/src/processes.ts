/** Runs each measurement in its own process, so that they share neither memory nor threads. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';

/**
 * Runs a program and parses the last line of its output as JSON; its stderr is shown only if it fails.
 * @throws Error if it exits with a code other than 0 or prints no JSON
 */
export async function runJson<T>(
  command: string,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<T> {
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [out, err]: [string[], string[]] = [[], []];
  child.stdout.setEncoding('utf8').on('data', (text: string) => out.push(text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => err.push(text));
  const code = await new Promise<number | string>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (status, signal) => resolve(status ?? signal ?? 'unknown'));
  });
  const shown = [command, ...args].join(' ');
  if (code !== 0) throw new Error(`${shown}: ended with ${code}:\n${err.join('').slice(-3000)}`);
  const line = out.join('').trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(line) as T;
  } catch {
    throw new Error(
      `${shown}: expected a line of JSON at the end of its output, found "${line.slice(0, 200)}"`,
    );
  }
}

/** Keeps one core busy while `work` runs. */
export async function besideBusyProcess<T>(work: () => Promise<T>): Promise<T> {
  const spinner: ChildProcess = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' });
  try {
    return await work();
  } finally {
    spinner.kill('SIGKILL');
  }
}
