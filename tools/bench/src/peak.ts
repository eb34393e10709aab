/** The machine's peak, from a loop of multiply-adds in registers (native/peak.cc). */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const source = fileURLToPath(new URL('../native/peak.cc', import.meta.url));

/** GFLOP/s of all threads together; `bfloat16` only if supported. */
export type Peak = { float32: number; bfloat16?: number };

/** Compiles and runs the loop. @throws Error without a C++ compiler */
export async function measurePeak(threads: number): Promise<Peak> {
  const dir = await mkdtemp(join(tmpdir(), 'blip2-peak-'));
  try {
    const program = join(dir, 'peak');
    await run(process.env.CXX ?? 'g++', ['-O3', '-march=native', '-pthread', source, '-o', program]);
    const { stdout } = await run(program, [String(threads)]);
    return parsePeak(stdout);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Parses lines such as "float32 210.5". @throws Error without a line for float32 */
export function parsePeak(text: string): Peak {
  const found = Object.fromEntries(
    [...text.matchAll(/^(float32|bfloat16) ([\d.]+)$/gm)].map(([, name, rate]) => [name, Number(rate)]),
  );
  if (!(found.float32 > 0)) throw new Error(`peak: expected "float32 GFLOP/s", found "${text.trim()}"`);
  return found as Peak;
}
