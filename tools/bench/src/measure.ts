/** Repeats the measurements of the documents: runs the recorded commands and fills the marked places. */
import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { machineText } from './machine';
import type { Measurement, Measurements } from './measurements';
import { render, tablesIn } from './measurements';

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
export const FILE = 'docs/measurements.json';
export const DOCUMENTS = [
  'README.md',
  'docs/benchmarks.md',
  'docs/backends.md',
  'docs/training.md',
  'packages/backend-native/README.md',
];

export async function readMeasurements(root = ROOT): Promise<Measurements> {
  return JSON.parse(await readFile(join(root, FILE), 'utf8')) as Measurements;
}

/**
 * Runs the commands of the named measurements, one after the other. Each is saved as soon as it is measured; then all
 * documents are rendered.
 * @throws Error for an unknown name, and for a command that fails or prints no table; its old figures stay
 */
export async function measure(names: readonly string[], say: (text: string) => void): Promise<void> {
  const measurements = await readMeasurements();
  for (const name of names) {
    if (!measurements[name])
      throw new Error(`measure: expected one of ${Object.keys(measurements).join(', ')}, found "${name}"`);
    say(`${name}: ${measurements[name].command}`);
    measurements[name] = await measureAgain(measurements[name]);
    await writeFile(join(ROOT, FILE), `${JSON.stringify(measurements, null, 2)}\n`);
  }
  for (const document of DOCUMENTS) {
    const file = join(ROOT, document);
    const text = await readFile(file, 'utf8');
    const rendered = render(text, measurements);
    if (rendered !== text) await writeFile(file, rendered);
  }
}

async function measureAgain({ command }: Measurement): Promise<Measurement> {
  const tables = tablesIn(await outputOf(command));
  if (Object.keys(tables).length === 0) throw new Error(`measure: ${command}: expected a table, found none`);
  return { command, date: new Date().toISOString().slice(0, 10), machine: machineText(), tables };
}

/** The command's stdout; its stderr is shown. */
async function outputOf(command: string): Promise<string> {
  const child = spawn(command, { cwd: ROOT, shell: true, stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  if (code !== 0) throw new Error(`measure: ${command}: expected exit code 0, found ${code}`);
  return output;
}
