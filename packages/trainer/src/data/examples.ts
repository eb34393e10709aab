/** Opening data sets, with `skip_bad` without the rows and images that cannot be used. */
import type { Dataset, DatasetOptions, Example } from '@blip2/data-captions';
import { DataError, decodeImage, openDataset } from '@blip2/data-captions';
import type { WorkHooks } from '../hooks';

/** Opens a split of a data set. @throws as openDataset; DataError when nothing is left */
export type OpenExamples = (path: string, options: DatasetOptions) => Promise<Dataset>;

/**
 * `openDataset`, where `skip_bad` also leaves out images that cannot be read, and reports what was left out. All splits
 * are opened by one function, so that a bad row that belongs to no split is reported once.
 */
export function examplesOpener(hooks: WorkHooks = {}): OpenExamples {
  const reported = new Set<string>();
  return async (path, options) => {
    if (!options.skip_bad) return openDataset(path, options).catch(withAdvice);
    const { examples: all, skipped = [], ...dataset } = await openDataset(path, options);
    const unreadable = await unreadableImages(all, hooks);
    const examples = all.filter(({ image }) => !unreadable.has(image));
    const bad = [
      ...skipped.map((p) => `${p.source}: expected ${p.expected}, found ${p.found}`),
      ...all.flatMap(({ image, source }) => unreadable.has(image) ? [`${source}: ${unreadable.get(image)}`] : []), // prettier-ignore
    ];
    const unreported = bad.filter((line) => !reported.has(line));
    for (const line of unreported) reported.add(line);
    if (unreported.length > 0)
      hooks.onMessage?.(listed(leftOut(dataset.path, unreported.length), unreported));
    if (examples.length === 0) throw new DataError(listed(`${dataset.path}: every row is bad`, bad));
    return { ...dataset, examples, skipped };
  };
}

/** Bad rows do not end the run. */
function withAdvice(error: unknown): never {
  if (!(error instanceof DataError) || error.problems.length === 0) throw error;
  const [what] = error.message.split('\n');
  throw new DataError(`${what}; repair them, or leave them out with skip_bad (--skip-bad)`, error.problems);
}

const SHOWN = 20;

const leftOut = (path: string, count: number) =>
  `${path}: left out ${count.toLocaleString('en')} bad row${count === 1 ? '' : 's'}`;

function listed(title: string, bad: string[]): string {
  const more = bad.length > SHOWN ? [`… and ${bad.length - SHOWN} more; blip2 data check lists all`] : [];
  return [title, ...bad.slice(0, SHOWN), ...more].join('\n  ');
}

/** What is wrong with each image that cannot be decoded. */
async function unreadableImages(examples: Example[], hooks: WorkHooks): Promise<Map<string, string>> {
  const images = [...new Set(examples.map(({ image }) => image))];
  const unreadable = new Map<string, string>();
  for (let from = 0; from < images.length; from += AT_ONCE) {
    const group = images.slice(from, from + AT_ONCE);
    const looks = group.map(async (image) => void (await decodeImage(image))); // without keeping the pixels
    for (const [i, look] of (await Promise.allSettled(looks)).entries())
      if (look.status === 'rejected') unreadable.set(group[i], (look.reason as Error).message);
    hooks.onPhase?.({ name: 'checking images', done: from + group.length, total: images.length });
  }
  return unreadable;
}

/** Images decoded side by side. */
const AT_ONCE = 8;
