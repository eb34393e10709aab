/** The models that runs made, and their bases. */
import { openRun } from '@blip2/trainer';
import { resolveModel } from '@blip2/weights/node';
import type { Folders } from '../folders';
import type { Runs } from '../runs';
import { pathOf } from '../settings';
import { versionOf } from './version';

const MOST = 4;

/** A model, and an adapter on it. */
export interface TriedModel {
  name: string;
  model: string;
  /** of the model's files; see `versionOf` */
  version: string;
  adapter?: string;
  adapterVersion?: string;
}

/** Models that cannot be tried, no picture, or too many requests; `status` is HTTP's. */
export class TryError extends Error {
  override name = 'TryError';
  constructor(
    message: string,
    readonly status: 422 | 429,
  ) {
    super(message);
  }
}

/** The base first, then each run. @throws TryError for none, too many, or runs of different bases; PathError */
export async function triedModels(
  names: readonly string[],
  runs: Runs,
  folders: Folders,
): Promise<TriedModel[]> {
  if (names.length === 0 || names.length > MOST)
    throw new TryError(`expected 1 to ${MOST} runs to try, found ${names.length}`, 422);
  const opened = await Promise.all(
    names.map(async (name) => ({ name, ...(await resultOf(name, runs, folders)) })),
  );
  const bases = [...new Set(opened.map(({ base }) => base))];
  if (bases.length > 1)
    throw new TryError(
      `expected runs of one base, found ${bases.map((base) => folders.shown(base)).join(', ')}`,
      422,
    );
  return Promise.all([withVersions({ name: 'base', model: bases[0] }), ...opened.map(withVersions)]);
}

/** The paths of what a run made, and of its base. @throws RunFolderError without a result; PathError */
export async function resultOf(
  name: string,
  runs: Runs,
  folders: Folders,
): Promise<{ base: string; model: string; adapter?: string }> {
  const { config, model, adapter } = await openRun(await runs.inside(name));
  return {
    base: await pathOf(config.model, folders),
    model: await pathOf(model, folders),
    adapter: adapter && (await folders.inside(adapter)),
  };
}

/** @throws WeightsError for a model that is not there */
async function withVersions({ name, model, adapter }: Omit<TriedModel, 'version'>): Promise<TriedModel> {
  const version = await versionOf(resolveModel(model));
  return { name, model, version, adapter, adapterVersion: adapter && (await versionOf(adapter)) };
}
