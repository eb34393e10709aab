/** The Hugging Face cache on disk, shared with Python: models--ORG--NAME/{blobs,refs,snapshots} (huggingface_hub's guide "cache"). */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { WeightsError } from './errors';
import { foldersIn, nearestFolder } from './nearest-folder';

export type Environment = Record<string, string | undefined>;

export const COMMIT = /^[0-9a-f]{40}$/;
const ID = /^[\w][\w.-]*\/[\w][\w.-]*$/;

/** Is this text a model's name on the hub, ORG/NAME? A folder of that name comes first everywhere. */
export function isModelId(text: string): boolean {
  return ID.test(text) && !text.includes('..');
}

/** The cache folder: HF_HUB_CACHE, else hub/ in HF_HOME, else ~/.cache/huggingface/hub, as in Python. */
export function hubCacheDir(env: Environment = process.env): string {
  const home = env['HF_HOME'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface');
  return env['HF_HUB_CACHE'] ?? env['HUGGINGFACE_HUB_CACHE'] ?? join(home, 'hub');
}

/** Whether HF_HUB_OFFLINE is set, by Python's rules. */
export function isOffline(env: Environment = process.env): boolean {
  return ['1', 'ON', 'YES', 'TRUE'].includes((env['HF_HUB_OFFLINE'] ?? '').toUpperCase());
}

/** A model's folder in the cache. */
export function repoFolder(cacheDir: string, id: string): string {
  return join(cacheDir, `models--${id.replace('/', '--')}`);
}

/** @throws WeightsError for a revision that would leave its folder */
export function checkRevision(revision: string): string {
  const isPlain =
    /^[\w.][\w./-]*$/.test(revision) && !revision.split('/').some((part) => part === '..' || part === '');
  if (!isPlain) throw new WeightsError(`revision: expected a branch, tag or commit, found "${revision}"`);
  return revision;
}

/** The cached snapshot of a model, if there is one. Nothing is downloaded. */
export function cachedSnapshot(
  id: string,
  { revision = 'main', cacheDir = hubCacheDir() }: { revision?: string; cacheDir?: string } = {},
): string | undefined {
  const repo = repoFolder(cacheDir, id);
  const ref = join(repo, 'refs', checkRevision(revision));
  const commit = COMMIT.test(revision)
    ? revision
    : isFile(ref)
      ? readFileSync(ref, 'utf8').trim()
      : undefined;
  if (commit === undefined || !COMMIT.test(commit)) return undefined;
  const snapshot = join(repo, 'snapshots', commit);
  return existsSync(snapshot) ? snapshot : undefined;
}

/**
 * The folder of a model: a folder stays as it is, a name on the hub (ORG/NAME, or ORG/NAME@REVISION) becomes its snapshot in the
 * cache. Nothing is downloaded.
 * @throws WeightsError for a name that is not in the cache, with the command that fetches it; for a path that seems mistyped, with
 * the folder that it probably means
 */
export function resolveModel(model: string, env: Environment = process.env): string {
  if (existsSync(model)) return model;
  const [id, revision] = model.split('@') as [string, string | undefined];
  const cacheDir = hubCacheDir(env);
  const snapshot = isModelId(id) ? cachedSnapshot(id, { revision, cacheDir }) : undefined;
  if (!snapshot) checkSpelling(model);
  if (!isModelId(id)) return model;
  const pull = `blip2 pull ${id}${revision ? ` --revision ${revision}` : ''}`;
  if (!snapshot)
    throw new WeightsError(
      `${model}: there is no such folder, and no such model in the cache ${cacheDir}; if it is a name on the Hugging Face hub, ` +
        `fetch it first: ${pull}`,
    );
  if (!existsSync(join(snapshot, 'config.json')) && !existsSync(join(snapshot, 'adapter_config.json')))
    throw new WeightsError(`${model}: the cached ${snapshot} is not complete; fetch the rest: ${pull}`);
  return snapshot;
}

/** @throws WeightsError for a path that is not here, if there is a folder of a similar name, or the folder that it should be in */
function checkSpelling(path: string): void {
  const meant = nearestFolder(path);
  if (meant !== undefined) throw new WeightsError(`${path}: there is no such folder; did you mean ${meant}?`);
  const parent = dirname(path);
  if (parent === '.' || !existsSync(parent)) return;
  const names = foldersIn(parent).filter((name) => !name.startsWith('.'));
  const more = names.length > LISTED ? `, and ${names.length - LISTED} more` : '';
  const found =
    names.length > 0 ? `has ${names.sort().slice(0, LISTED).join(', ')}${more}` : 'has no folders';
  throw new WeightsError(`${path}: there is no such folder; ${parent} ${found}`);
}

const LISTED = 8;

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
