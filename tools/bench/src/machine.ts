/** Machine and versions of a measurement. */
import { availableParallelism, cpus, totalmem } from 'node:os';
import { runJson } from './processes';
import type { Sides } from './sides';

const VERSIONS =
  'import json, torch, transformers, peft; ' +
  'print(json.dumps(dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__)))';

/** Cores, processor, memory and Node. */
export function machineText(): string {
  const cpu = cpus()[0]?.model.trim() ?? process.arch;
  const memory = (totalmem() / 2 ** 30).toFixed(0);
  return `${availableParallelism()} cores of ${cpu}, ${memory} GiB, Node ${process.version}`;
}

/** One paragraph: day, machine, versions of what is compared, threads. */
export async function machineLine({ python, threads }: Sides, compares = true): Promise<string> {
  const found = compares ? await runJson<Record<string, string>>(python, ['-c', VERSIONS]) : {};
  const versions = Object.entries(found).map(([name, version]) => `, ${name} ${version}`);
  const day = new Date().toISOString().slice(0, 10);
  return `${day}: ${machineText()}${versions.join('')}; ${threads} threads on each side.`;
}
