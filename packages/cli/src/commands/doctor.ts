/** `blip2 doctor`: lists what this machine supports and what is missing. */
import { readFileSync, statfsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus, freemem, totalmem } from 'node:os';
import type { Command } from 'commander';
import { dispose, linear, normal, rngKey, tensor, tidy } from '@blip2/nn';
import { probeBackends, useBackend } from '@blip2/nn/node';
import type { BackendAttempt, Tensor2D } from '@blip2/nn';
import { cores } from '../io';
import { command } from '../options';
import { paint } from '../printable';
import type { Ui } from '../ui';
import { bytes, columns } from '../ui';

export function doctorCommand(ui: Ui): Command {
  return command('doctor', 'Check this machine: backends, speed, libraries, disk.', 'blip2 doctor').action(
    () => doctor(ui),
  );
}

/** A backend, with its speed if it started. */
type ProbedBackend = BackendAttempt & { gflops?: number };

async function doctor(ui: Ui): Promise<void> {
  const backends: ProbedBackend[] = [];
  for (const attempt of await probeBackends())
    backends.push({ ...attempt, ...(attempt.ok && { gflops: await measure(attempt.name) }) });
  const used = await useBackend('auto', { precision: 'auto' }).then(
    ({ name }) => name,
    () => undefined,
  );
  const machine = machineFacts();
  const lines = () => backends.map((backend) => backendLine(backend, backend.name === used)).join('\n');
  ui.result({ ...machine, backend: used, backends }, () => `${machineTable(machine)}\n\n${lines()}`);
}

function machineFacts() {
  const disk = statfsSync(process.cwd());
  return {
    node: process.version,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    threads: cores,
    features: cpuFeatures(),
    memory: { total: totalmem(), free: freemem() },
    disk: { free: disk.bavail * disk.bsize },
    sharp: sharpVersion(),
  };
}

function machineTable(machine: ReturnType<typeof machineFacts>): string {
  const { node, cpu, threads, features, memory, disk, sharp } = machine;
  return columns([
    ['node', `${node}${nodeIsOld() ? ', too old: 20.19 or newer is needed' : ''}`],
    ['cpu', `${cpu}, ${threads} threads`],
    ['features', features.join(' ') || 'unknown on this system'],
    ['memory', `${bytes(memory.free)} free of ${bytes(memory.total)}`],
    ['disk', `${bytes(disk.free)} free in this folder`],
    ['sharp', sharp ?? paint.red('cannot be loaded: npm install sharp')],
  ]);
}

/** For a missing backend, `why` includes how to install it. */
function backendLine({ name, ok, why, gflops }: ProbedBackend, used: boolean): string {
  if (!ok) return `${paint.yellow('–')} ${name.padEnd(10)} ${why}`;
  const speed = `${gflops!.toFixed(1)} GFLOP/s`.padStart(14);
  return `${paint.green('✓')} ${name.padEnd(10)} ${speed}  ${why}${used ? paint.bold(' (auto uses this one)') : ''}`;
}

/** GFLOP/s of a square float32 matmul, the best of those that run within half a second. */
async function measure(name: BackendAttempt['name']): Promise<number> {
  await useBackend(name);
  const side = name === 'cpu' ? 128 : 512;
  const values = normal(rngKey(0), side * side);
  const [x, weight] = [tensor(values, [side, side]), tensor<Tensor2D>(values, [side, side])];
  let best = 0;
  for (const begin = performance.now(); performance.now() - begin < 500;) {
    const start = performance.now();
    const y = tidy(() => linear({ weight }, x));
    await y.data();
    best = Math.max(best, (2 * side ** 3) / (performance.now() - start) / 1e6);
    dispose(y);
  }
  dispose([x, weight]);
  return best;
}

/** Vector instructions that the backends use; empty on systems other than Linux. */
function cpuFeatures(): string[] {
  const features = [
    'avx2',
    'fma',
    'avx512f',
    'avx512_bf16',
    'avx_vnni',
    'avx512_vnni',
    'amx_bf16',
    'amx_int8',
    'asimd',
    'bf16',
  ];
  try {
    const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
    const found = new Set(flags.trim().split(/\s+/));
    return features.filter((feature) => found.has(feature));
  } catch {
    return [];
  }
}

function sharpVersion(): string | undefined {
  try {
    const here = createRequire(import.meta.url);
    const owner = createRequire(here.resolve('@blip2/data-captions/package.json'));
    const { versions } = owner('sharp') as { versions: Record<string, string> };
    return `${versions.sharp} (libvips ${versions.vips})`;
  } catch {
    return undefined;
  }
}

function nodeIsOld(): boolean {
  const [major, minor] = process.versions.node.split('.').map(Number);
  return major < 20 || (major === 20 && minor < 19);
}
