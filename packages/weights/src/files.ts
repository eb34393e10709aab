/** Opening one safetensors file or a Hugging Face folder. */
import type { FileHandle } from 'node:fs/promises';
import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { WeightsError, reason } from './errors';
import { folderFormat } from './formats';
import { duplicateKeys, isRecord, list, show } from './header';
import type { OpenSource, WeightReader } from './reader';
import { openSource, readerOf } from './reader';
import { openRegular, readRegular } from './regular-file';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const MAX_INDEX_BYTES = 100_000_000;
/**
 * Opens a .safetensors file, or a folder with `model.safetensors` or `model.safetensors.index.json` and its shards.
 * Headers are read and checked completely; data is read on demand.
 * @throws WeightsError if there are no weights, a shard is missing, or a header is broken
 */
export async function openWeights(fileOrFolder: string): Promise<WeightReader> {
  const info = await stat(fileOrFolder).catch((error: unknown) => {
    throw new WeightsError(
      `${fileOrFolder}: expected a .safetensors file or a model folder: ${reason(error)}`,
    );
  });
  if (!info.isDirectory()) return openSingle(fileOrFolder, fileOrFolder);
  const names = new Set(await readdir(fileOrFolder));
  if (names.has(SINGLE)) return openSingle(fileOrFolder, join(fileOrFolder, SINGLE));
  if (names.has(INDEX)) return openSharded(fileOrFolder, names);
  const other = folderFormat([...names]) ?? otherFiles(names);
  throw new WeightsError(`${fileOrFolder}: expected ${SINGLE} or ${INDEX}, found ${other}`);
}

async function openSingle(path: string, file: string): Promise<WeightReader> {
  const opened = await openFile(file);
  try {
    return await readerOf(path, [opened], new Map());
  } catch (error) {
    await opened.source.close();
    throw error;
  }
}

function otherFiles(names: ReadonlySet<string>): string {
  const files = [...names].filter((name) => name.endsWith('.safetensors')).sort();
  return files.length > 0
    ? `${files.slice(0, 5).join(', ')}; rename the file of the whole model`
    : 'no weight files';
}

async function openSharded(folder: string, present: ReadonlySet<string>): Promise<WeightReader> {
  const index = join(folder, INDEX);
  const weightMap = await readIndex(index);
  const shards = [...new Set(weightMap.values())].sort();
  const absent = shards.filter((shard) => !present.has(shard));
  if (absent.length > 0) {
    throw new WeightsError(
      `${index}: expected ${shards.length} shards in ${folder}, absent:\n${list(absent)}`,
      absent.map((shard) => `${shard}: absent`),
    );
  }
  const files: OpenSource[] = [];
  try {
    for (const shard of shards) files.push(await openFile(join(folder, shard)));
    return await readerOf(folder, files, weightMap);
  } catch (error) {
    await Promise.all(files.map(({ source }) => source.close()));
    throw error;
  }
}

/** An index's `weight_map`: tensor name → shard, a plain file name of the same folder. */
async function readIndex(index: string): Promise<Map<string, string>> {
  let text: string;
  let json: unknown;
  try {
    text = (await readRegular(index, MAX_INDEX_BYTES)).toString('utf8');
    json = JSON.parse(text);
  } catch (error) {
    throw new WeightsError(`${index}: expected JSON: ${reason(error)}`, undefined, { cause: error });
  }
  const map = isRecord(json) ? json['weight_map'] : undefined;
  if (!isRecord(map) || Object.keys(map).length === 0) {
    throw new WeightsError(
      `${index}: weight_map: expected an object of tensor name → shard file, found ${show(map)}`,
    );
  }
  const problems = duplicateKeys(text).map((name) => `${show(name)}: expected once, found twice`);
  for (const [name, shard] of Object.entries(map)) {
    // A path could lead out of the folder; real indexes have plain names only.
    const plain =
      typeof shard === 'string' && /^[^/\\:\0]+\.safetensors$/.test(shard) && basename(shard) === shard;
    if (!plain)
      problems.push(`tensor ${show(name)}: expected a plain *.safetensors file name, found ${show(shard)}`);
  }
  if (problems.length > 0)
    throw new WeightsError(`${index}: broken weight_map:\n${list(problems)}`, problems);
  return new Map(Object.entries(map as Record<string, string>));
}

async function openFile(file: string): Promise<OpenSource> {
  let handle: FileHandle | undefined;
  try {
    const { handle: opened, size } = await openRegular(file);
    handle = opened;
    return await openSource({
      file,
      isFile: true,
      size,
      read: (to, position, what) => readAt(opened, to, position, file, what),
      close: () => opened.close(),
    });
  } catch (error) {
    await handle?.close();
    if (error instanceof WeightsError) throw error;
    throw new WeightsError(`${file}: cannot be read: ${reason(error)}`, undefined, { cause: error });
  }
}

/** Fills `to` from a position; one call reads at most 1 GiB, because the system caps a read at 2 GiB. */
async function readAt(
  handle: FileHandle,
  to: Uint8Array,
  position: number,
  file: string,
  what: string,
): Promise<void> {
  let done = 0;
  while (done < to.byteLength) {
    const size = Math.min(to.byteLength - done, 1 << 30);
    const { bytesRead } = await handle.read(to, done, size, position + done).catch((error: unknown) => {
      throw new WeightsError(`${file}: ${what}: cannot be read: ${reason(error)}`);
    });
    if (bytesRead === 0) {
      throw new WeightsError(
        `${file}: ${what}: expected ${to.byteLength} bytes at ${position}, found ${done} (changed while open?)`,
      );
    }
    done += bytesRead;
  }
}
