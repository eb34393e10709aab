/** Training processes that meet a fault at one call to the file system, and what they leave. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkpointDir } from '../src/run/checkpoint';
import type { FitConfig } from '../src/config';
import { courseOf, jsonLines } from './tiny';
import type { Fault } from './faults-process';

export interface Ended {
  /** null when it was killed */
  code: number | null;
  messages: string[];
  /** calls that change files, of a process that came to its end */
  calls?: number;
  error?: string;
  /** the call that the fault met first */
  met?: { call: string; file: string };
  stderr: string;
}

/** Runs a training process to its end. */
export async function trainWith(
  script: string,
  fault: Fault,
  config: FitConfig,
  resume = false,
): Promise<Ended> {
  const args = [script, JSON.stringify(fault), JSON.stringify(config), ...(resume ? ['resume'] : [])];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (chunk: Buffer) => void (stderr += chunk));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  const ended: Ended = { code, messages: [], stderr };
  for (const line of stderr.split('\n').filter((text) => text.startsWith('{'))) {
    const { message, ...rest } = JSON.parse(line) as { message?: string };
    if (message !== undefined) ended.messages.push(message);
    else Object.assign(ended, rest);
  }
  return ended;
}

/** Everything a finished run leaves that its course decides, without the times. */
export async function outcome(dir: string, lastStep: number) {
  const last = checkpointDir(dir, lastStep);
  const hash = async (file: string) =>
    createHash('sha256')
      .update(await readFile(file))
      .digest('hex');
  const results = JSON.parse(await readFile(join(dir, 'results.json'), 'utf8')) as object;
  return {
    adapter: await hash(join(dir, 'adapter', 'adapter_model.safetensors')),
    trainables: await hash(join(last, 'trainables.safetensors')),
    moments: await hash(join(last, 'optimizer.safetensors')),
    course: await courseOf(dir),
    training_samples: await jsonLines(join(dir, 'training-samples.jsonl')),
    samples: await jsonLines(join(dir, 'samples.jsonl')),
    results: { ...results, train_seconds: undefined },
    report: (await readFile(join(dir, 'report.html'), 'utf8')).includes('</html>'),
  };
}

/** Where in a run a file is written. */
export function placeOf(file: string): string {
  if (file.includes('features')) return 'feature cache';
  if (/checkpoints|step-\d/.test(file)) return 'checkpoints';
  if (/metrics|training-samples|tensorboard/.test(file)) return 'logs';
  if (/adapter/.test(file)) return 'adapter';
  return /results|samples|report/.test(file) ? 'final table and report' : 'run folder';
}

/** Rows by place, columns by kind of fault: how many were met. */
export function table(met: { kind: string; place: string }[]): string {
  const kinds = [...new Set(met.map(({ kind }) => kind))];
  const count = (kind: string, place?: string) =>
    met.filter((one) => one.kind === kind && (place === undefined || one.place === place)).length;
  const line = (name: string, values: (string | number)[]) =>
    name.padEnd(24) + values.map((value) => String(value).padStart(10)).join('');
  const places = [...new Set(met.map(({ place }) => place))];
  return [
    line('fault met while writing', kinds),
    ...places.map((place) => line(place, kinds.map((kind) => count(kind, place)))), // prettier-ignore
    line('all', kinds.map((kind) => count(kind))), // prettier-ignore
  ].join('\n');
}
