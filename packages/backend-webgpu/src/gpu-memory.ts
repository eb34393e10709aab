/** Memory of a GPU, which WebGPU does not report: from the driver's own tools and files. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';

/** Bytes of memory of the GPU with that name; undefined if nothing on this machine reports it. Apple's GPUs share that of the machine. */
export function gpuMemory(vendor: string, name: string): number | undefined {
  if (process.platform === 'darwin') return totalmem();
  if (vendor === 'nvidia') return nvidiaMemory(runNvidiaSmi(), name);
  return process.platform === 'linux' ? amdMemory('/sys/class/drm') : undefined;
}

function runNvidiaSmi(): string {
  try {
    const args = ['--query-gpu=name,memory.total', '--format=csv,noheader,nounits'];
    return execFileSync('nvidia-smi', args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 5000,
    });
  } catch {
    return ''; // not installed, as in some containers
  }
}

/** From lines such as `NVIDIA H200, 143771`, in MiB: of the card with that name, else the smallest. */
export function nvidiaMemory(printed: string, name: string): number | undefined {
  const cards = printed.split('\n').flatMap((line) => {
    const [, card, mebibytes] = /^(.*), (\d+)\s*$/.exec(line) ?? [];
    return card ? [{ card, bytes: Number(mebibytes) * 2 ** 20 }] : [];
  });
  const named = cards.filter(({ card }) => name.includes(card) || card.includes(name));
  const sizes = (named.length > 0 ? named : cards).map(({ bytes }) => bytes);
  return sizes.length > 0 ? Math.min(...sizes) : undefined;
}

/** The largest `mem_info_vram_total` below the folder of Linux's graphics cards. */
export function amdMemory(folder: string): number | undefined {
  const sizes = namesIn(folder).flatMap((card) => {
    try {
      return [Number(readFileSync(join(folder, card, 'device/mem_info_vram_total'), 'utf8'))];
    } catch {
      return []; // another vendor's, or an output of a card
    }
  });
  return sizes.length > 0 ? Math.max(...sizes) : undefined;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
