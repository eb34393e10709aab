/** What the tables were measured on and with. */
import { availableParallelism, cpus, totalmem } from 'node:os';
import { runJson } from './processes';
import type { Sides } from './sides';

const VERSIONS =
  'import json, torch, transformers, peft; ' +
  'print(json.dumps(dict(torch=torch.__version__, transformers=transformers.__version__, peft=peft.__version__)))';

/** One paragraph: day, machine, versions, threads. */
export async function machineLine(sides: Sides): Promise<string> {
  const rival = await runJson<Record<string, string>>(sides.python, ['-c', VERSIONS]);
  const versions = Object.entries(rival).map(([name, version]) => `${name} ${version}`);
  const cpu = cpus()[0]?.model.trim() ?? process.arch;
  return (
    `${new Date().toISOString().slice(0, 10)}: ${availableParallelism()} cores of ${cpu}, ` +
    `${(totalmem() / 2 ** 30).toFixed(0)} GiB, Node ${process.version}, ${versions.join(', ')}; ${sides.threads} threads on each side.`
  );
}
