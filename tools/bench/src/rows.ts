/** Alternating measurements of several sides, and their table rows. */
import type { SideReport } from './side';
import { digits, gigabytes, median, times } from './table';

/** One side of a comparison: its label, and one measurement in its own process. */
export interface Competitor<R extends SideReport = SideReport> {
  label: string;
  measure(): Promise<R>;
}

/** Medians over all timed calls of all rounds. */
export interface Measured<R extends SideReport = SideReport> {
  label: string;
  /** Of one step or call, without the first of each process, which warms up. */
  seconds: number;
  first_seconds: number;
  load_seconds: number;
  loaded_rss_bytes: number;
  peak_rss_bytes: number;
  /** Of the GPU, or resident. */
  memory_bytes: number;
  reports: R[];
}

/** Measures every competitor once per round, so that a slow phase of the machine affects all of them. */
export async function takeTurns<R extends SideReport>(
  competitors: readonly Competitor<R>[],
  rounds: number,
): Promise<Measured<R>[]> {
  const reports = competitors.map((): R[] => []);
  for (let round = 0; round < rounds; round++)
    for (const [i, competitor] of competitors.entries()) reports[i].push(await competitor.measure());
  return competitors.map(({ label }, i) => summary(label, reports[i]));
}

export function summary<R extends SideReport>(label: string, reports: R[]): Measured<R> {
  const each = (pick: (report: R) => number) => median(reports.map(pick));
  const timed = reports.flatMap(({ seconds }) => seconds.slice(1));
  if (timed.length === 0)
    throw new Error(`${label}: expected at least two calls, since the first warms up, found one`);
  return {
    label,
    seconds: median(timed),
    first_seconds: each(({ seconds }) => seconds[0]),
    load_seconds: each(({ load_seconds }) => load_seconds),
    loaded_rss_bytes: Math.max(...reports.map(({ loaded_rss_bytes }) => loaded_rss_bytes)),
    peak_rss_bytes: Math.max(...reports.map(({ peak_rss_bytes }) => peak_rss_bytes)),
    memory_bytes: Math.max(...reports.map(({ gpu_bytes, peak_rss_bytes }) => gpu_bytes ?? peak_rss_bytes)),
    reports,
  };
}

export const STEP_HEAD = ['', 's/step', 's/image', 'speed', 'first step, s', 'load, s', 'peak RSS, GB'];
export const GPU_STEP_HEAD = [...STEP_HEAD.slice(0, -1), 'GPU memory, GB'];

/** A row for each; the speed is relative to the first one, the baseline. */
export function stepRows(measured: readonly Measured[], batch: number): string[][] {
  const [baseline] = measured;
  return measured.map((m) => [
    m.label,
    digits(m.seconds),
    digits(m.seconds / batch),
    times(baseline.seconds / m.seconds),
    digits(m.first_seconds),
    digits(m.load_seconds),
    gigabytes(m.memory_bytes),
  ]);
}
