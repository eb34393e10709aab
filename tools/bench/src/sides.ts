/** Runs measurements of either side, each in its own process. */
import { fileURLToPath } from 'node:url';
import type { Precision } from '@blip2/nn';
import type { CaptionReport } from './caption';
import { runJson } from './processes';
import type { SideBackend } from './side';
import type { Features, StepPreset, StepReport } from './step';

export type SideName = 'ours' | 'pytorch';

/** Settings of all measurements. */
export interface Sides {
  /** Python with torch, transformers and peft. */
  python: string;
  threads: number;
  /** PyTorch's attention. */
  attention: 'sdpa' | 'eager';
  /** Ours computes there. */
  backend: SideBackend;
  /** PyTorch computes there. */
  device: 'cpu' | 'cuda';
  /** The compiled bin.js. */
  bin: string;
  say(text: string): void;
}

export interface StepRun {
  model: string;
  work: string;
  preset: StepPreset;
  steps: number;
  features: Features;
  precision: Precision;
  lr?: number;
  adapter?: string;
  noDropout?: boolean;
  kernels?: boolean;
  /** LoRA in so many upper layers alone. */
  upper?: number;
}

export interface CaptionRun {
  model: string;
  work: string;
  beams: number;
  newTokens: number;
  repeat: number;
  precision: Precision;
}

export const pythonScript = (name: string) => fileURLToPath(new URL(`../python/${name}`, import.meta.url));

export async function stepOf(sides: Sides, side: SideName, run: StepRun): Promise<StepReport> {
  const { preset, features, precision, steps } = run;
  sides.say(`${side}: ${steps} steps, ${preset}, features ${features}, ${precision}`);
  return runSide(sides, side, 'step', flags({ ...run }));
}

export async function captionOf(sides: Sides, side: SideName, run: CaptionRun): Promise<CaptionReport> {
  sides.say(`${side}: captions, ${run.beams} beams, ${run.precision}`);
  return runSide(sides, side, 'caption', flags({ ...run }));
}

async function runSide<T>(
  sides: Sides,
  side: SideName,
  what: 'step' | 'caption',
  args: string[],
): Promise<T> {
  const threads = ['--threads', String(sides.threads)];
  if (side === 'ours')
    return runJson(process.execPath, [sides.bin, what, ...args, ...threads, '--backend', sides.backend]);
  const script = [
    pythonScript(`${what}.py`),
    ...args,
    ...threads,
    '--attention',
    sides.attention,
    '--device',
    sides.device,
  ];
  return runJson(sides.python, script, { OMP_NUM_THREADS: String(sides.threads) });
}

/** { newTokens: 20, kernels: true } → --new-tokens 20 --kernels */
export function flags(run: Record<string, string | number | boolean | undefined>): string[] {
  return Object.entries(run).flatMap(([name, value]) => {
    const flag = `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    if (value === undefined || value === false) return [];
    return value === true ? [flag] : [flag, String(value)];
  });
}
