/** A data set without what cannot be used, where a run may leave it out. */
import type { Dataset, DatasetOptions, Example } from '@blip2/data-captions';
import { DataError, decodeImage, openDataset } from '@blip2/data-captions';
import type { CacheHooks } from './fit-session';

/** What is told while data is opened. */
export type DataHooks = Pick<CacheHooks, 'onMessage' | 'onPhase'>;

/**
 * `openDataset`, where `skip_bad` also leaves out images that cannot be read, and says what was left out.
 * @throws as openDataset; DataError when nothing is left
 */
export async function openExamples(
  path: string,
  options: DatasetOptions,
  hooks: DataHooks = {},
): Promise<Dataset> {
  const dataset = await openDataset(path, options).catch(withAdvice);
  if (!options.skip_bad) return dataset;
  const unreadable = await unreadableImages(dataset.examples, hooks);
  const examples = dataset.examples.filter(({ image }) => !unreadable.has(image));
  const lost = dataset.examples.flatMap(({ image, source }) =>
    unreadable.has(image) ? [`${source}: ${unreadable.get(image)}`] : [],
  );
  // of splits that are drawn, each has heard of every bad row; the training split says it
  const told = options.split_fractions && options.split !== undefined ? [] : (dataset.skipped ?? []);
  const rows = told.map((p) => `${p.source}: expected ${p.expected}, found ${p.found}`);
  const bad = [...rows, ...lost];
  if (bad.length > 0) hooks.onMessage?.(skippedLines(dataset.path, bad));
  if (examples.length === 0) throw new DataError(`${dataset.path}: every row is bad\n${bad.join('\n')}`);
  return { ...dataset, examples };
}

/** Bad rows need not end a run. */
function withAdvice(error: unknown): never {
  if (!(error instanceof DataError) || error.problems.length === 0) throw error;
  const [what] = error.message.split('\n');
  throw new DataError(`${what}; repair them, or leave them out with skip_bad (--skip-bad)`, error.problems);
}

const SHOWN = 20;

function skippedLines(path: string, bad: string[]): string {
  const more = bad.length > SHOWN ? [`… and ${bad.length - SHOWN} more; blip2 data check lists all`] : [];
  const title = `${path}: left out ${bad.length.toLocaleString('en')} bad rows`;
  return [title, ...bad.slice(0, SHOWN), ...more].join('\n  ');
}

/** What is wrong with each image that cannot be decoded. */
async function unreadableImages(examples: Example[], hooks: DataHooks): Promise<Map<string, string>> {
  const images = [...new Set(examples.map(({ image }) => image))];
  const unreadable = new Map<string, string>();
  for (let from = 0; from < images.length; from += AT_ONCE) {
    const group = images.slice(from, from + AT_ONCE);
    const looks = group.map((image) => decodeImage(image));
    for (const [i, look] of (await Promise.allSettled(looks)).entries())
      if (look.status === 'rejected') unreadable.set(group[i], (look.reason as Error).message);
    hooks.onPhase?.({ name: 'checking images', done: from + group.length, total: images.length });
  }
  return unreadable;
}

/** Images decoded side by side. */
const AT_ONCE = 8;
