/** Fetching a model from the Hugging Face hub into the cache, with the hub's own client (@huggingface/hub). */
import type { ListFileEntry } from '@huggingface/hub';
import { existsSync } from 'node:fs';
import { copyFile, rename, rm, statfs, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { WeightsError } from './errors';
import { COMMIT, checkRevision, hubCacheDir, isModelId, isOffline, repoFolder } from './hub-cache';
import type { Environment } from './hub-cache';
import type { RemoteFile } from './hub-download';
import { downloadBlob, hasSize, hashOf, lockOf } from './hub-download';
import type { FetchLimits } from './hub-fetch';
import { describe, limitedFetch } from './hub-fetch';
import { draftOf, makeFolders, removeDeadDrafts, writeFileAtomic } from './staging';

export interface PullOptions {
  /** Branch, tag or commit; `main` by default. */
  revision?: string;
  /** The cache; that of `env` by default. */
  cacheDir?: string;
  /** HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_DOWNLOAD_TIMEOUT; process.env by default. */
  env?: Environment;
  /** Compare files that are already in the cache with their checksums, and download damaged ones again. */
  verify?: boolean;
  /** Called with the snapshot when all small files are there, before the weights are downloaded; may throw. */
  beforeWeights?: (folder: string) => Promise<void>;
  /** Called as bytes arrive; files that are already in the cache count as done. */
  onProgress?: (progress: { file: string; done: number; total: number }) => void;
  /** Called when an attempt failed and is repeated, or another process downloads the same file. */
  onMessage?: (text: string) => void;
}

export interface Pulled {
  /** The snapshot: a model folder. */
  folder: string;
  commit: string;
  files: {
    path: string;
    size: number;
    fetched: boolean;
    /** The content has been compared with its checksum. */
    verified: boolean;
  }[];
}

const COMPANIONS =
  /^(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|adapter_config)\.json$|^merges\.txt$/;
/** The second tokenizer of InstructBLIP, for its Q-Former. */
const SECOND_TOKENIZER =
  /^qformer_tokenizer\/(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab)\.(json|txt)$/;
const SHARD = /^model-\d+-of-\d+\.safetensors$/;
const ADAPTER = /^(adapter_model|extra_trainables)\.safetensors$/;

/**
 * Fetches the files of a model (configuration, tokenizer, preprocessor and safetensors) or of an adapter. Files in the cache are
 * not fetched again, an interrupted download continues where it stopped, and every downloaded file is checked by its checksum.
 * Several processes may pull the same model at once: each file is downloaded by one of them.
 * @throws WeightsError when offline, for an unknown or closed repository, one without safetensors, too little space, or a
 * damaged download
 */
export async function pullModel(id: string, options: PullOptions = {}): Promise<Pulled> {
  const { env = process.env, revision = 'main', beforeWeights } = options;
  const cacheDir = options.cacheDir ?? hubCacheDir(env);
  if (!isModelId(id))
    throw new WeightsError(`${id}: expected a name on the hub, such as Salesforce/blip2-opt-2.7b`);
  checkRevision(revision);
  if (isOffline(env))
    throw new WeightsError(`${id}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it to go online`);
  const remote = await openRemote(id, revision, env, options.onMessage);
  const repo = repoFolder(cacheDir, id);
  const folder = join(repo, 'snapshots', remote.commit);
  const chosen = neededFiles(remote.files, id);
  await requireSpace(join(repo, 'blobs'), chosen);
  const files: Pulled['files'] = [];
  const obtain = obtainer({ id, repo, folder, remote, chosen, options });
  const isWeights = ({ path }: RemoteFile) => path.endsWith('.safetensors');
  for (const file of chosen) if (!isWeights(file)) files.push(await obtain(file));
  await beforeWeights?.(folder);
  for (const file of chosen) if (isWeights(file)) files.push(await obtain(file));
  if (revision !== remote.commit) {
    const ref = join(repo, 'refs', revision);
    await makeFolders(dirname(ref));
    await writeFileAtomic(ref, remote.commit); // last: a reference never names a snapshot that is not complete
  }
  return { folder, commit: remote.commit, files };
}

interface Pull {
  id: string;
  repo: string;
  folder: string;
  remote: Remote;
  chosen: readonly RemoteFile[];
  options: PullOptions;
}

/** A function that puts one file into the snapshot, downloading it if it is not in the cache. */
function obtainer({ id, repo, folder, remote, chosen, options: { verify, onProgress, onMessage } }: Pull) {
  const total = chosen.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  return async (file: RemoteFile): Promise<Pulled['files'][number]> => {
    const { path, size, hash } = file;
    const [blob, where] = [join(repo, 'blobs', hash), `${id}: ${path}`];
    // A killed download leaves its lock: the next one removes it.
    let isCached = (await hasSize(blob, size)) && (verify || !existsSync(lockOf(blob)));
    if (isCached && verify && (await hashOf(blob, file)) !== hash) {
      onMessage?.(`${path}: damaged in the cache; downloading it again`);
      await rm(blob);
      isCached = false;
    }
    const fetched =
      !isCached &&
      (await downloadBlob(blob, {
        file,
        where,
        ...remote.request(path),
        onRetry: (problem) => onMessage?.(`${path}: ${problem}; trying again`),
        onWait: (holder) => onMessage?.(`${path}: waiting for another download of it: ${holder}`),
        onBytes: (bytes) => onProgress?.({ file: path, done: done + bytes, total }),
      }));
    done += size;
    onProgress?.({ file: path, done, total });
    await link(blob, join(folder, path));
    return { path, size, fetched, verified: fetched || verify === true };
  };
}

/** @throws WeightsError when the missing files do not fit on the disk */
async function requireSpace(blobs: string, files: readonly RemoteFile[]): Promise<void> {
  await makeFolders(blobs);
  const missing = await Promise.all(
    files.map(async ({ hash, size }) => ((await hasSize(join(blobs, hash), size)) ? 0 : size)),
  );
  const needed = missing.reduce((sum, size) => sum + size, 0);
  const { bavail, bsize } = await statfs(blobs);
  const gib = (bytes: number) => (bytes / 2 ** 30).toFixed(1);
  if (needed > bavail * bsize)
    throw new WeightsError(
      `${blobs}: the download needs ${gib(needed)} GiB, but ${gib(bavail * bsize)} GiB are free; make room, or choose another cache folder`,
    );
}

interface Remote {
  commit: string;
  files: RemoteFile[];
  /** What a download of the file requests. */
  request: (path: string) => { url: string; headers: Record<string, string>; timeoutMs: number };
}

async function openRemote(
  id: string,
  revision: string,
  env: Environment,
  onMessage?: (text: string) => void,
): Promise<Remote> {
  const hub = await import('@huggingface/hub');
  const hubUrl = env['HF_ENDPOINT']?.replace(/\/+$/, '') || hub.HUB_URL;
  const token = env['HF_TOKEN'];
  const timeoutMs = 1000 * (Number(env['HF_HUB_DOWNLOAD_TIMEOUT']) || 10); // Python's variable and default
  const limits: FetchLimits = {
    timeoutMs,
    onRetry: (problem) => onMessage?.(`${hubUrl}: ${problem}; trying again`),
  };
  try {
    const access = { hubUrl, fetch: limitedFetch(hubUrl, limits), ...(token && { accessToken: token }) };
    const { sha } = await hub.modelInfo({ ...access, name: id, revision, additionalFields: ['sha'] });
    if (!COMMIT.test(sha)) throw new Error(`expected a commit, found "${String(sha)}"`);
    const files = new Map<string, RemoteFile>();
    for await (const entry of hub.listFiles({ ...access, repo: id, revision: sha, recursive: true }))
      if (entry?.type === 'file') files.set(entry.path, remoteFile(entry));
    // Plain HTTP ranges instead of Xet's chunks, because they can be resumed.
    const request = (path: string) => ({
      url: `${hubUrl}/${id}/resolve/${sha}/${path}`,
      headers: token ? { authorization: `Bearer ${token}` } : ({} as Record<string, string>),
      timeoutMs,
    });
    return { commit: sha, files: [...files.values()], request };
  } catch (error) {
    throw new WeightsError(`${id}: ${explain(error, hubUrl, revision, env)}`, undefined, { cause: error });
  }
}

function remoteFile({ path, size, oid, lfs }: ListFileEntry): RemoteFile {
  return lfs
    ? { path, size, hash: lfs.oid, algorithm: 'sha256' }
    : { path, size, hash: oid ?? '', algorithm: 'git-sha1' };
}

function explain(error: unknown, hubUrl: string, revision: string, env: Environment): string {
  const status = (error as { statusCode?: number }).statusCode;
  if (status === 401 || status === 403) {
    const token = env['HF_TOKEN']
      ? 'the token in HF_TOKEN has no access'
      : 'if it is private or gated, set HF_TOKEN';
    return `${hubUrl} refuses (${status}): the name may be wrong, or ${token}`;
  }
  if (status === 404) return `${hubUrl} has no such model or revision (${revision})`;
  const isOdd = error instanceof TypeError || error instanceof SyntaxError;
  if (isOdd && !error.cause)
    // with a cause, it is fetch's "no connection"
    return `${hubUrl}: expected the answers of a Hugging Face hub, found others: ${describe(error)}`;
  return `${hubUrl} cannot be reached: ${describe(error)}`;
}

/** Configuration, tokenizer and weights; nothing that could run code. */
function neededFiles(files: readonly RemoteFile[], id: string): RemoteFile[] {
  const has = (name: string) => files.some(({ path }) => path === name);
  const isWeights = has('adapter_config.json')
    ? (path: string) => ADAPTER.test(path)
    : has('model.safetensors')
      ? (path: string) => path === 'model.safetensors'
      : (path: string) => SHARD.test(path) || path === 'model.safetensors.index.json';
  const chosen = files.filter(
    ({ path }) => COMPANIONS.test(path) || SECOND_TOKENIZER.test(path) || isWeights(path),
  );
  if (!chosen.some(({ path }) => path.endsWith('.safetensors'))) {
    const other = files
      .filter(({ path }) => /\.(bin|pt|pth|h5|msgpack|onnx|gguf)$/.test(path))
      .map(({ path }) => path);
    throw new WeightsError(
      `${id}: expected safetensors, found ${other.slice(0, 5).join(', ') || 'no weights'}; in Python, from_pretrained(…).save_pretrained(…) converts .bin files`,
    );
  }
  for (const file of chosen) checkFile(file, id);
  return chosen;
}

/** @throws WeightsError for a size or checksum that no file has */
function checkFile({ path, size, hash, algorithm }: RemoteFile, id: string): void {
  const length = algorithm === 'sha256' ? 64 : 40;
  if (typeof hash !== 'string' || !new RegExp(`^[0-9a-f]{${length}}$`).test(hash))
    throw new WeightsError(`${id}: ${path}: expected a checksum from the hub, found "${hash}"`);
  if (!Number.isSafeInteger(size) || size < 1)
    throw new WeightsError(`${id}: ${path}: expected a size from the hub, found "${size}"`);
}

/** A relative link, as Python makes it; a copy if the system does not allow links. It appears whole or not at all. */
async function link(blob: string, pointer: string): Promise<void> {
  await makeFolders(dirname(pointer));
  await removeDeadDrafts(pointer);
  const draft = draftOf(pointer);
  try {
    await symlink(relative(dirname(pointer), blob), draft).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPERM' && error.code !== 'ENOSYS') throw error;
      await copyFile(blob, draft);
    });
    await rename(draft, pointer);
  } finally {
    await rm(draft, { force: true });
  }
}
