/** What an assistant is told of a run. */
import { join } from 'node:path';
import type { WorkplaceRun } from '@blip2/studio';

const LINES = 10;

export function runStatus(name: string, { folder, state, log, metrics, samples, results }: WorkplaceRun) {
  const last = samples.at(-1)?.step;
  return {
    name,
    state,
    folder,
    step: results?.steps ?? metrics.at(-1)?.step,
    ...(state === 'finished'
      ? { ...results, report: join(folder, 'report.html') }
      : {
          metrics: metrics.slice(-LINES),
          samples: samples.filter(({ step }) => step === last),
          log: log.slice(-LINES),
        }),
  };
}
