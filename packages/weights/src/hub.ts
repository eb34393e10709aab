/** Fetching a model from the Hugging Face hub into the cache, with the hub's own client (@huggingface/hub). */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { copyFile, mkdir, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ReadableStream } from 'node:stream/web';
import { WeightsError, reason } from './errors';
import { COMMIT, checkRevision, hubCacheDir, isModelId, isOffline, repoFolder } from './hub-cache';
import type { Environment } from './hub-cache';

export interface PullOptions {
  /** Branch, tag or commit; `main` by default. */
  revision?: string;
  /** The cache; that of `env` by default. */
  cacheDir?: string;
  /** HF_HUB_CACHE, HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE; process.env by default. */
  env?: Environment;
  /** Called as bytes arrive; files that are already in the cache count as done. */
  onProgress?: (progress: { file: string; done: number; total: number }) => void;
}

export interface Pulled {
  /** The snapshot: a model folder. */
  folder: string;
  commit: string;
  files: { path: string; size: number; fetched: boolean }[];
}

/** A file of the repository: the content's own checksum is its name in the cache. */
interface RemoteFile {
  path: string;
  size: number;
  /** Of the content (LFS), or of git's blob. */
  hash: string;
  algorithm: 'sha256' | 'git-sha1';
}

const COMPANIONS =
  /^(config|generation_config|preprocessor_config|processor_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|adapter_config)\.json$|^merges\.txt$/;
const SHARD = /^model-\d+-of-\d+\.safetensors$/;
const ADAPTER = /^(adapter_model|extra_trainables)\.safetensors$/;

/**
 * Fetches the files of a model (configuration, tokenizer, preprocessor and safetensors) or of an adapter. Files in the cache are
 * not fetched again, an interrupted download continues where it stopped, and every file is checked by its checksum.
 * @throws WeightsError when offline, for an unknown or closed repository, one without safetensors, or a damaged download
 */
export async function pullModel(id: string, options: PullOptions = {}): Promise<Pulled> {
  const { env = process.env, revision = 'main', onProgress } = options;
  const cacheDir = options.cacheDir ?? hubCacheDir(env);
  if (!isModelId(id))
    throw new WeightsError(`${id}: expected a name on the hub, such as Salesforce/blip2-opt-2.7b`);
  checkRevision(revision);
  if (isOffline(env))
    throw new WeightsError(`${id}: HF_HUB_OFFLINE is set, so nothing is fetched; unset it to go online`);
  const remote = await openRemote(id, revision, env);
  const repo = repoFolder(cacheDir, id);
  const folder = join(repo, 'snapshots', remote.commit);
  const chosen = neededFiles(remote.files, id);
  const total = chosen.reduce((sum, { size }) => sum + size, 0);
  const files: Pulled['files'] = [];
  let done = 0;
  for (const file of chosen) {
    const blob = join(repo, 'blobs', file.hash);
    const fetched = !(await hasSize(blob, file.size));
    if (fetched) {
      await fetchBlob(
        blob,
        file,
        `${id}: ${file.path}`,
        () => remote.open(file.path),
        (bytes) => onProgress?.({ file: file.path, done: done + bytes, total }),
      );
    }
    done += file.size;
    onProgress?.({ file: file.path, done, total });
    await link(blob, join(folder, file.path));
    files.push({ path: file.path, size: file.size, fetched });
  }
  if (revision !== remote.commit) {
    const ref = join(repo, 'refs', revision);
    await mkdir(dirname(ref), { recursive: true });
    await writeFile(ref, remote.commit); // last: a reference never names a snapshot that is not complete
  }
  return { folder, commit: remote.commit, files };
}

interface Remote {
  commit: string;
  files: RemoteFile[];
  open: (path: string) => Promise<Blob | null>;
}

async function openRemote(id: string, revision: string, env: Environment): Promise<Remote> {
  const hub = await import('@huggingface/hub');
  const hubUrl = env['HF_ENDPOINT']?.replace(/\/+$/, '') || hub.HUB_URL;
  const access = { hubUrl, ...(env['HF_TOKEN'] ? { accessToken: env['HF_TOKEN'] } : {}) };
  try {
    const { sha } = await hub.modelInfo({ ...access, name: id, revision, additionalFields: ['sha'] });
    if (!COMMIT.test(sha)) throw new Error(`expected a commit, found "${String(sha)}"`);
    const files: RemoteFile[] = [];
    for await (const entry of hub.listFiles({ ...access, repo: id, revision: sha })) {
      const { path, size, lfs, oid } = entry;
      if (entry.type !== 'file') continue;
      files.push(
        lfs
          ? { path, size, hash: lfs.oid, algorithm: 'sha256' }
          : { path, size, hash: oid ?? '', algorithm: 'git-sha1' },
      );
    }
    // Plain HTTP ranges instead of Xet's chunks, because they can be resumed.
    const open = (path: string) => hub.downloadFile({ ...access, repo: id, path, revision: sha, xet: false });
    return { commit: sha, files, open };
  } catch (error) {
    throw new WeightsError(`${id}: ${explain(error, hubUrl, revision, env)}`, undefined, { cause: error });
  }
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
  const cause = (error as { cause?: unknown }).cause;
  return `${hubUrl} cannot be asked: ${reason(error)}${cause ? ` (${reason(cause)})` : ''}`;
}

/** Configuration, tokenizer and weights; nothing that could run code. */
function neededFiles(files: readonly RemoteFile[], id: string): RemoteFile[] {
  const has = (name: string) => files.some(({ path }) => path === name);
  const isWeights = has('adapter_config.json')
    ? (path: string) => ADAPTER.test(path)
    : has('model.safetensors')
      ? (path: string) => path === 'model.safetensors'
      : (path: string) => SHARD.test(path) || path === 'model.safetensors.index.json';
  const chosen = files.filter(({ path }) => COMPANIONS.test(path) || isWeights(path));
  if (!chosen.some(({ path }) => path.endsWith('.safetensors'))) {
    const other = files
      .filter(({ path }) => /\.(bin|pt|pth|h5|msgpack|onnx|gguf)$/.test(path))
      .map(({ path }) => path);
    throw new WeightsError(
      `${id}: expected safetensors, found ${other.slice(0, 5).join(', ') || 'no weights'}; in Python, from_pretrained(…).save_pretrained(…) converts .bin files`,
    );
  }
  const odd = chosen.find(
    ({ hash, algorithm }) => !new RegExp(`^[0-9a-f]{${algorithm === 'sha256' ? 64 : 40}}$`).test(hash),
  );
  if (odd)
    throw new WeightsError(`${id}: ${odd.path}: expected a checksum from the hub, found "${odd.hash}"`);
  return chosen;
}

/** Downloads into `blob`.incomplete, resuming an earlier attempt, checks the file, and renames it. */
async function fetchBlob(
  blob: string,
  file: RemoteFile,
  where: string,
  open: () => Promise<Blob | null>,
  onBytes: (bytes: number) => void,
): Promise<void> {
  await mkdir(dirname(blob), { recursive: true });
  const incomplete = `${blob}.incomplete`;
  let have = (await stat(incomplete).catch(() => undefined))?.size ?? 0;
  if (have > file.size) {
    await rm(incomplete);
    have = 0;
  }
  try {
    const content = await open();
    if (!content) throw new Error('the hub has no such file any more');
    const rest = have > 0 ? content.slice(have, file.size) : content;
    const bytes = have < file.size ? Readable.fromWeb(rest.stream() as ReadableStream) : Readable.from([]);
    bytes.on('data', (chunk: Uint8Array) => onBytes((have += chunk.length)));
    await pipeline(bytes, createWriteStream(incomplete, { flags: have > 0 ? 'a' : 'w' }));
  } catch (error) {
    throw new WeightsError(
      `${where}: interrupted (${reason(error)}); run the same command again, it goes on from there`,
      undefined,
      {
        cause: error,
      },
    );
  }
  await check(incomplete, file, where);
  await rename(incomplete, blob);
}

async function check(path: string, { size, hash, algorithm }: RemoteFile, where: string): Promise<void> {
  const { size: found } = await stat(path);
  if (found < size)
    throw new WeightsError(
      `${where}: interrupted at ${found} of ${size} bytes; run the same command again, it goes on from there`,
    );
  const digest = createHash(algorithm === 'sha256' ? 'sha256' : 'sha1');
  if (algorithm === 'git-sha1') digest.update(`blob ${size}\0`);
  await pipeline(createReadStream(path), digest);
  const actual = digest.digest('hex');
  if (actual === hash) return;
  await rm(path);
  throw new WeightsError(
    `${where}: damaged: expected ${algorithm} ${hash}, found ${actual}; it was thrown away, run the same command again`,
  );
}

async function hasSize(path: string, size: number): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.size === size;
}

/** A relative link, as Python makes it; a copy if the system does not allow links. */
async function link(blob: string, pointer: string): Promise<void> {
  await mkdir(dirname(pointer), { recursive: true });
  await rm(pointer, { force: true });
  await symlink(relative(dirname(pointer), blob), pointer).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPERM' && error.code !== 'ENOSYS') throw error;
    await copyFile(blob, pointer);
  });
}
