/** A step's time by kernel, relative to the machine's peak. */
import { measurePeak } from './peak';
import type { Peak } from './peak';
import type { KernelTime } from './kernels';
import { stepOf } from './sides';
import type { Sides, StepRun } from './sides';
import { digits, markdownTable } from './table';

/** Kernels below this share of the step are summed in one row. */
const SMALL = 0.01;

/** Runs our side with timed kernels. The machine's peak is measured before and after; the higher one is used. */
export async function kernelTable(sides: Sides, run: StepRun): Promise<string> {
  const before = await measurePeak(sides.threads);
  const { kernels, seconds } = await stepOf(sides, 'ours', run);
  const after = await measurePeak(sides.threads);
  const peak = peakOf(run.precision, [before, after]);
  const timed = seconds.slice(1);
  const step = timed.reduce((a, b) => a + b, 0) / timed.length; // the kernels' figures are means too
  return (
    markdownTable(
      ['kernel', 'calls', 'ms', 'share', 'GFLOP/s', 'of peak'],
      kernelRows(kernels ?? [], step, peak),
    ) + `\n\nPeak of ${run.precision}: ${digits(peak)} GFLOP/s on ${sides.threads} threads.`
  );
}

/** Machines without bfloat16 matmul have the peak of float32. */
function peakOf(precision: StepRun['precision'], peaks: readonly Peak[]): number {
  const kind = precision === 'float32' ? 'float32' : 'bfloat16';
  return Math.max(...peaks.map((peak) => peak[kind] ?? peak.float32));
}

/** Longest first, then the small ones, the time outside kernels, and the whole step. `step` in seconds. */
export function kernelRows(kernels: readonly KernelTime[], step: number, peak: number): string[][] {
  const row = (name: string, calls: string, { seconds, flop }: Pick<KernelTime, 'seconds' | 'flop'>) => {
    const rate = flop / 1e9 / seconds;
    const products = flop > 0 ? [digits(rate), `${((100 * rate) / peak).toFixed(0)} %`] : ['', ''];
    return [name, calls, digits(seconds * 1000), `${((100 * seconds) / step).toFixed(0)} %`, ...products];
  };
  const large = kernels.filter(({ seconds }) => seconds >= SMALL * step);
  const small = kernels.filter((kernel) => !large.includes(kernel));
  const add = (list: readonly KernelTime[], key: 'seconds' | 'calls' | 'flop') =>
    list.reduce((sum, kernel) => sum + kernel[key], 0);
  const outside = Math.max(0, step - add(kernels, 'seconds'));
  return [
    ...large.map((kernel) => row(kernel.kernel, kernel.calls.toFixed(0), kernel)),
    row(`${small.length} others`, add(small, 'calls').toFixed(0), {
      seconds: add(small, 'seconds'),
      flop: add(small, 'flop'),
    }),
    row('outside kernels', '', { seconds: outside, flop: 0 }),
    row('whole step', add(kernels, 'calls').toFixed(0), { seconds: step, flop: add(kernels, 'flop') }),
  ];
}
