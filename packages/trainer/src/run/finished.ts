/** Reads a run folder back: its settings, its result, its held-out examples, and the pictures it trained on. */
import { existsSync } from 'node:fs';
import { dirname, isAbsolute, join, resolve, sep } from 'node:path';
import type { Dataset, TextRules } from '@blip2/data-captions';
import { imageId } from '@blip2/data-captions';
import type { FitConfig } from '../config';
import { parseConfig, readConfigFile } from '../config';
import type { FitData } from '../data/open';
import { finalSplit, loadData } from '../data/open';
import type { WorkHooks } from '../hooks';
import { RunFolderError } from './folder';
import { hashImages, readImageList } from './identity';

export interface FinishedRun {
  /** with paths that hold from here */
  config: FitConfig;
  /** the base, or the whole model that the run trained */
  model: string;
  adapter?: string;
}

/** @throws RunFolderError for a folder that is no run, or a run without a result; ConfigError */
export async function openRun(dir: string): Promise<FinishedRun> {
  const file = join(dir, 'config.yaml');
  if (!existsSync(file))
    throw new RunFolderError(`${dir}: expected a run folder with config.yaml, as fit makes it, found none`);
  const config = withPathsFrom(dir, parseConfig(await readConfigFile(file), file));
  const [adapter, model] = [join(dir, 'adapter'), join(dir, 'model')];
  if (existsSync(join(adapter, 'adapter_config.json'))) return { config, model: config.model, adapter };
  if (existsSync(join(model, 'config.json'))) return { config, model };
  throw new RunFolderError(
    `${dir}: expected the result of the run in adapter/ or model/, found neither; if it was stopped, continue it: ` +
      `npx blip2 fit ${file} --resume`,
  );
}

/** Paths in a run's settings are relative to the folder in which the run was started; see `startFolder`. */
function withPathsFrom(dir: string, config: FitConfig): FitConfig {
  const root = startFolder(dir, config.output_dir);
  const near = <T extends string | undefined>(path: T): T =>
    path !== undefined && !isAbsolute(path) && root !== undefined && existsSync(join(root, path))
      ? (join(root, path) as T)
      : path;
  const { model, adapter, data, eval_data, test_data, image_folder } = config;
  return {
    ...config,
    output_dir: dir,
    model: near(model),
    adapter: near(adapter),
    data: near(data),
    eval_data: near(eval_data),
    test_data: near(test_data),
    image_folder: near(image_folder),
  };
}

/** The part of a run folder's path before its relative `output_dir`; undefined in the working folder, or if the run was moved. */
function startFolder(dir: string, output_dir: string): string | undefined {
  const [whole, end] = [resolve(dir), join(sep, output_dir)];
  if (isAbsolute(output_dir) || !whole.endsWith(end)) return undefined;
  const root = whole.slice(0, -end.length);
  return root === process.cwd() ? undefined : root;
}

/**
 * The data of a run, and the examples of its final table, or those of `split`.
 * @throws RunFolderError when the run held nothing out; DataError, ConfigError
 */
export async function heldOut(
  run: FitConfig,
  texts: TextRules,
  { split, limit, ...hooks }: WorkHooks & { split?: string; limit?: number },
): Promise<{ data: FitData; split: string; dataset: Dataset }> {
  const config: FitConfig = { ...run, final_evaluation: 'test', eval_limit: limit ?? run.eval_limit };
  const data = await loadData(config, hooks, texts);
  const final = finalSplit(config, data);
  if (split === undefined && final) return { data, ...final };
  const found = (['train', 'validation', 'test'] as const).find((name) => name === split);
  const dataset = found && data[found];
  if (dataset) return { data, split: split!, dataset };
  throw new RunFolderError(
    `${run.output_dir}: the run held out no ${split ?? 'pictures'}; score its result on other data with --data`,
  );
}

/** Which of these pictures a run trained on, by content. @throws DataError if its data is needed and gone */
export async function trainedPictures(dir: string, pictures: readonly string[]): Promise<string[]> {
  const trained = new Set(await trainingIds(dir));
  const found: string[] = [];
  for (const picture of new Set(pictures)) if (trained.has(await imageId(picture))) found.push(picture);
  return found;
}

/** Of the run, and of the run whose adapter it started from. */
async function trainingIds(dir: string): Promise<string[]> {
  const file = join(dir, 'config.yaml');
  const config = withPathsFrom(dir, parseConfig(await readConfigFile(file), file));
  const before = config.adapter === undefined ? undefined : dirname(config.adapter);
  const earlier =
    before !== undefined && existsSync(join(before, 'config.yaml')) ? await trainingIds(before) : [];
  // a run without a cache has no list
  const own =
    (await readImageList(dir)) ??
    (await hashImages((await loadData(config)).train.examples)).map(([id]) => id);
  return [...earlier, ...own];
}
