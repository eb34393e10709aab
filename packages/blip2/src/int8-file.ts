/**
 * Weights rounded to int8, or in the text model to int4, made once and kept in a safetensors file: for each weight NAME its blocks (U8),
 * `NAME.scales` and `NAME.factors` (F32), and for int4 `NAME.steps` (U8); with the copy of the output layer (output-layer.ts). Metadata: the identity of the checkpoint, and the CRC-32 of each weight. native maps the file into memory.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { readFile, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { crc32 } from 'node:zlib';
import { spansOf } from '@blip2/nn';
import type { Encoding, StoredWeight } from '@blip2/nn';
import { bytesPerElement } from '@blip2/weights';
import type { TensorEntry, WeightReader } from '@blip2/weights';
import { makeFolders, openWeights, safetensorsHeader, withStaged } from '@blip2/weights/node';
import type { Blip2Config } from './config';
import type { Int8Options, Int8Weights } from './load';
import { bitsOf, isRounded, roundedWeight } from './load';
import { OUTPUT_LAYER, outputLayerName, roundedOutputLayer } from './output-layer';
import { smoothingDigest } from './smoothing';
import { storedWeight } from './stored-weight';
import { tiesOf } from './ties';

export interface Int8FileOptions extends Int8Options {
  /** The folder of the file; without it, the weights are rounded in memory at each load. */
  cache_dir?: string;
  /** Called with one sentence about the file. */
  onMessage?: (text: string) => void;
  /** Called while the file is made. */
  onProgress?: (done: number, total: number) => void;
}

/** Changes when the bytes of a weight would. */
const FORMAT = 1;

/**
 * The weights of a checkpoint, rounded: mapped from their file, which is made if it is missing or damaged. If it cannot be
 * written, onMessage gets the reason, and no weights are returned.
 */
export async function int8Weights(
  config: Blip2Config,
  reader: WeightReader,
  o: Int8FileOptions,
): Promise<Int8Weights> {
  const { cache_dir, smoothing, text_bits = 8, onMessage = () => undefined } = o;
  if (cache_dir === undefined) return new Map();
  const exact = new Set(smoothing?.exact);
  const entries: Rounded[] = roundedEntries(reader).flatMap((entry) =>
    exact.has(entry.name) ? [] : [{ name: entry.name, entry }],
  );
  const output = outputLayer(config, reader);
  entries.push(...output);
  const identity = await identityOf(
    reader,
    output.map(({ entry }) => entry),
    o,
  );
  const file = join(cache_dir, `int${text_bits}-${identity.slice(0, 32)}.safetensors`);
  const found = await openInt8(file, identity, entries, o);
  if (found) return found;
  try {
    const begin = performance.now();
    await write(file, identity, reader, entries, o);
    const made = await openInt8(file, identity, entries, o);
    const { size } = await stat(file);
    onMessage(
      `int${text_bits} weights: ${(size / 2 ** 20).toFixed(0)} MiB made in ${((performance.now() - begin) / 1000).toFixed(1)} s, in ${file}`,
    );
    return made ?? new Map();
  } catch (error) {
    onMessage(
      `int${text_bits} weights: ${file} cannot be written (${(error as Error).message}); they are kept in memory only`,
    );
    return new Map();
  }
}

/** A weight of the file and the one of the checkpoint that it is made from. */
interface Rounded {
  name: string;
  entry: TensorEntry;
}

/** Tied tensors may be stored under either name. */
function outputLayer(config: Blip2Config, { entries }: WeightReader): Rounded[] {
  const name = outputLayerName(config);
  const aliases = tiesOf(config).flatMap(({ tensor, alias }) => (tensor === name ? [alias] : []));
  const [entry] = [name, ...aliases].flatMap((one) => entries.get(one) ?? []);
  return entry?.shape.length === 2 ? [{ name: OUTPUT_LAYER, entry }] : [];
}

const roundedEntries = (reader: WeightReader) =>
  [...reader.entries.values()].filter((entry) => isRounded(entry.name, entry));

/** `more` are rounded, too, beside those of the layers. */
async function identityOf(
  reader: WeightReader,
  more: readonly TensorEntry[],
  { smoothing, text_bits = 8 }: Int8Options,
): Promise<string> {
  const checkpoint = await readerIdentity(reader, more);
  const others = [
    'with output layer',
    ...(smoothing ? [smoothingDigest(smoothing)] : []),
    ...(text_bits === 8 ? [] : [text_bits]),
  ];
  return createHash('sha256')
    .update([checkpoint, ...others].join(' '))
    .digest('hex');
}

/** Of the weights of a checkpoint folder that can be rounded. */
export async function checkpointIdentity(dir: string): Promise<string> {
  const reader = await openWeights(dir);
  try {
    return await readerIdentity(reader);
  } finally {
    await reader.close();
  }
}

/**
 * Of the checkpoint's files (name, size, time of the last change), and of names, shapes and some values of the weights, since a time can be
 * copied.
 */
async function readerIdentity(reader: WeightReader, more: readonly TensorEntry[] = []): Promise<string> {
  const entries = [...roundedEntries(reader), ...more];
  const hash = createHash('sha256').update(`${FORMAT}\n`);
  for (const file of new Set(entries.map((entry) => entry.file))) {
    const { size, mtimeNs } = await stat(file, { bigint: true });
    hash.update(`${basename(file)} ${size} ${mtimeNs}\n`);
  }
  for (const { name, dtype, shape, begin, end } of entries) {
    const stored = (end - begin) / bytesPerElement(dtype); // of 4 bits, pairs
    const middle = Math.floor(stored / 2);
    const some = await reader.readRaw(name, middle, Math.min(stored, middle + 64));
    hash.update(`${name} ${dtype} ${shape}\n`).update(some);
  }
  return hash.digest('hex');
}

/** The weights of a file, or undefined if it is missing, damaged (which is reported), or of another checkpoint. */
async function openInt8(
  file: string,
  identity: string,
  entries: readonly Rounded[],
  { text_bits = 8, onMessage = () => undefined }: Int8FileOptions,
): Promise<Int8Weights | undefined> {
  if (!(await stat(file).catch(() => undefined))) return undefined;
  try {
    const reader = await openWeights(file);
    try {
      const { metadata } = reader;
      if (metadata['identity'] !== identity) throw new Error('of another checkpoint');
      const weights = new Map(entries.map((one) => [one.name, weightOf(reader, one, text_bits)]));
      if (!(await isChecked(file))) {
        if (metadata['crc32'] === undefined) throw new Error('an earlier version made it');
        const sums = metadata['crc32'].split(' ');
        for (const [i, [name, weight]] of [...weights].entries())
          if ((await checksumOf(weight)) !== Number(sums[i]))
            throw new Error(`the bytes of ${name} are damaged`);
      }
      await markChecked(file);
      return weights;
    } finally {
      await reader.close();
    }
  } catch (error) {
    onMessage(`int${text_bits} weights: ${file} is made again: ${(error as Error).message}`);
    await rm(file, { force: true }).catch(() => undefined);
    return undefined;
  }
}

/** Beside the file: what it was like when its checksums were compared. Comparing them reads all of it, which takes most of a load. */
const markOf = (file: string) => file.replace(/\.safetensors$/, '.checked');

/** Changes whenever the file is written, replaced or touched: the system sets the time of the last change of its status. */
async function stampOf(file: string): Promise<string> {
  const { dev, ino, size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
  return [dev, ino, size, mtimeNs, ctimeNs].join(' ');
}

async function isChecked(file: string): Promise<boolean> {
  const mark = await readFile(markOf(file), 'utf8').catch(() => undefined);
  return mark !== undefined && mark === (await stampOf(file));
}

/**
 * The time of the mark is that of the last use, for `blip2 cache`; that of the file must not change, since other processes may have mapped it
 * and check that it did not. A folder that cannot be written costs time only.
 */
async function markChecked(file: string): Promise<void> {
  await writeFile(markOf(file), await stampOf(file)).catch(() => undefined);
}

function weightOf(reader: WeightReader, { name, entry }: Rounded, text_bits: 8 | 4): StoredWeight {
  const [rows, columns] = entry.shape;
  const span = (part: string) => reader.span(name + part)!; // it is a file
  const floats = { scales: span('.scales'), factors: span('.factors') };
  const encoding: Encoding =
    bitsOf(name, text_bits) === 8
      ? { kind: 'INT8', ...floats }
      : { kind: 'INT4', ...floats, steps: span('.steps') };
  return { shape: [rows!, columns!], data: span(''), encoding, rounded: true };
}

/** Bytes of a file that are read at a time. */
const PIECE = 4 << 20;

/** CRC-32 of all parts of a weight. */
async function checksumOf(weight: StoredWeight): Promise<number> {
  let sum = 0;
  for (const span of spansOf(weight)) {
    if (!('file' in span)) {
      sum = crc32(span.bytes, sum);
      continue;
    }
    const { file, begin, bytes } = span;
    const stream = createReadStream(file, { start: begin, end: begin + bytes - 1, highWaterMark: PIECE });
    for await (const piece of stream) sum = crc32(piece as Buffer, sum);
  }
  return sum;
}

/** Blocks first, since they are the ones that must be aligned, and steps last; in the order of `entries`. */
function layout(entries: readonly Rounded[], text_bits: 8 | 4) {
  const steps: { name: string; dtype: 'U8'; shape: number[] }[] = [];
  const blocks = entries.map(({ name, entry }) => {
    const [rows, columns] = entry.shape;
    const bits = bitsOf(name, text_bits);
    const count = Math.ceil(rows! / 32) * Math.ceil(columns! / (bits === 8 ? 32 : 64));
    if (bits === 4) steps.push({ name: `${name}.steps`, dtype: 'U8', shape: [count, 32] });
    return { name, dtype: 'U8', shape: [count, 1024] } as const;
  });
  const floats = entries.flatMap(
    ({ name, entry: { shape } }) =>
      [
        { name: `${name}.scales`, dtype: 'F32', shape: [shape[0]!] },
        { name: `${name}.factors`, dtype: 'F32', shape: [shape[1]!] },
      ] as const,
  );
  return [...blocks, ...floats, ...steps];
}

const ALIGNMENT = 64;

/** @throws the file system's error; the file is then not there */
async function write(
  file: string,
  identity: string,
  reader: WeightReader,
  entries: readonly Rounded[],
  { onProgress, smoothing, text_bits = 8 }: Int8FileOptions,
): Promise<void> {
  await makeFolders(dirname(file));
  const tensors = layout(entries, text_bits);
  const model = resolve(dirname(entries[0]?.entry.file ?? '')); // for people who list the cache
  // Checksums are known last, so the header has room for them.
  const header = (sums: readonly number[]) => {
    const crc32 = sums.map((sum) => String(sum).padStart(10, '0')).join(' ');
    return safetensorsHeader(tensors, { identity, crc32, model }, file, ALIGNMENT);
  };
  const bytes = tensors.reduce(
    (sum, { dtype, shape }) => sum + (dtype === 'U8' ? 1 : 4) * shape.reduce((a, b) => a * b, 1),
    0,
  );
  const first = header(entries.map(() => 0));
  await checkSpace(dirname(file), first.byteLength + bytes);
  await withStaged((stage) =>
    stage(file, async (handle) => {
      const [sums, small, last]: [number[], Uint8Array[], Uint8Array[]] = [[], [], []];
      let at = first.byteLength;
      for (const [done, { name, entry }] of entries.entries()) {
        const stored = (await storedWeight(entry, reader))!;
        const bits = bitsOf(name, text_bits);
        const weight =
          name === OUTPUT_LAYER
            ? await roundedOutputLayer(stored)
            : roundedWeight(stored, smoothing?.factors.get(name), bits);
        sums.push(await checksumOf(weight));
        const [blocks, ...parts] = spansOf(weight).map(({ bytes }) => bytes as Uint8Array);
        at = await writeAt(handle, blocks!, at);
        if (bits === 4) last.push(parts.shift()!);
        small.push(...parts);
        onProgress?.(done + 1, entries.length);
        await new Promise((resolve) => setImmediate(resolve));
      }
      for (const part of [...small, ...last]) at = await writeAt(handle, part, at);
      await writeAt(handle, header(sums), 0);
    }),
  );
}

async function writeAt(handle: FileHandle, bytes: Uint8Array, at: number): Promise<number> {
  for (let done = 0; done < bytes.byteLength;) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done, at + done);
    done += bytesWritten;
  }
  return at + bytes.byteLength;
}

/** @throws Error, so that a disk is not filled up first */
async function checkSpace(dir: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(dir);
  const mib = (n: number) => `${Math.ceil(n / 2 ** 20)} MiB`;
  if (bavail * bsize < bytes)
    throw new Error(`expected ${mib(bytes)} of free disk, found ${mib(bavail * bsize)}`);
}
