/**
 * The safetensors header: 8 bytes little-endian length N, N bytes of JSON
 * `{ "__metadata__"?: { string: string }, name: { dtype, shape, data_offsets: [begin, end] } }`, then the data without gaps.
 * Format: https://github.com/huggingface/safetensors#format. This file checks every field before it is used.
 */
import { DTYPES, bytesPerElement, elementCount, isDType } from './dtype';
import type { DType } from './dtype';
import { WeightsError, reason } from './errors';
import type { Quantisation } from './quantised';

/** One stored tensor. `begin` and `end` are absolute byte offsets in `file`. */
export interface TensorEntry {
  name: string;
  dtype: DType;
  shape: number[];
  file: string;
  begin: number;
  end: number;
  /** Its numbers are quantised: `shape` is that of the weight, `dtype`, `begin` and `end` are those of its bytes. */
  quantised?: Quantisation;
}

export interface Header {
  entries: Map<string, TensorEntry>;
  metadata: Record<string, string>;
}

/** The reference implementation's limit on header bytes. */
export const MAX_HEADER_BYTES = 100_000_000;

/** Most problems in one message; the error's `problems` has all. */
const SHOWN = 20;

/**
 * Header length from a file's first 8 bytes, checked against the file's size.
 * @throws WeightsError for a file too short, or a length of 0, beyond the cap or beyond the file
 */
export function headerLength(first: Uint8Array, fileSize: number, file: string): number {
  if (first.byteLength < 8) {
    throw new WeightsError(`${file}: not a safetensors file: expected at least 8 bytes, found ${fileSize}`);
  }
  const length = new DataView(first.buffer, first.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new WeightsError(
      `${file}: header length: expected at most ${MAX_HEADER_BYTES} bytes, found ${length} (not a safetensors file?)`,
    );
  }
  if (length < 2n || Number(length) > fileSize - 8) {
    throw new WeightsError(
      `${file}: header length: expected 2 … ${fileSize - 8} bytes in a file of ${fileSize}, found ${length} (truncated?)`,
    );
  }
  return Number(length);
}

/**
 * Parses and checks a header: names unique, dtypes known, shapes whole numbers, byte counts equal to shape × dtype,
 * offsets covering the data exactly once and ending at the end of the file.
 * @throws WeightsError with the file and all faulty tensors
 */
export function parseHeader(bytes: Uint8Array, fileSize: number, file: string): Header {
  const dataStart = 8 + bytes.byteLength;
  const json = parseJsonObject(bytes, file);
  refuseSmallFloats(json, file);
  const problems: string[] = [];
  const entries = new Map<string, TensorEntry>();
  const metadata = Object.hasOwn(json, '__metadata__') ? readMetadata(json['__metadata__'], problems) : {};
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') continue;
    const entry = readEntry(name, value, file, dataStart, problems);
    if (entry) entries.set(name, entry);
  }
  if (problems.length === 0) checkCoverage([...entries.values()], dataStart, fileSize, problems);
  if (problems.length > 0) {
    throw new WeightsError(`${file}: broken safetensors header:\n${list(problems)}`, problems);
  }
  return { entries, metadata };
}

/** Indented lines, abridged. */
export function list(problems: readonly string[], shown = SHOWN): string {
  const lines = problems.slice(0, shown).map((problem) => `  ${problem}`);
  if (problems.length > shown) lines.push(`  … and ${problems.length - shown} more`);
  return lines.join('\n');
}

function parseJsonObject(bytes: Uint8Array, file: string): Record<string, unknown> {
  refuseDense(bytes, file);
  let text: string;
  let json: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
    json = JSON.parse(text);
  } catch (error) {
    throw new WeightsError(`${file}: header: expected JSON in UTF-8: ${reason(error)}`, undefined, {
      cause: error,
    });
  }
  if (!isRecord(json)) {
    throw new WeightsError(`${file}: header: expected a JSON object, found ${show(json)}`);
  }
  const twice = duplicateKeys(text);
  if (twice.length > 0) {
    throw new WeightsError(
      `${file}: header: expected each name once, found twice: ${twice.map(show).join(', ')}`,
    );
  }
  return json;
}

/** @throws WeightsError for a dtype that only quantised checkpoints have, in one sentence */
function refuseSmallFloats(json: Record<string, unknown>, file: string): void {
  for (const [name, value] of Object.entries(json)) {
    const dtype = isRecord(value) ? value['dtype'] : undefined;
    if (typeof dtype === 'string' && /^F[468]_/.test(dtype))
      throw new WeightsError(
        `${file}: weights are stored as ${show(dtype)}, such as ${show(name)}: they are quantised, which is not supported: ` +
          'use the checkpoint in float32, float16 or bfloat16',
      );
  }
}

/** Smaller headers are parsed as they are. */
const DENSE_FROM = 1 << 20;

/**
 * A tensor takes 50 bytes and at most three brackets, so a large header with more of them, or deeply nested, is none. To parse
 * one of 90 MB of brackets would take gigabytes.
 * @throws WeightsError
 */
function refuseDense(bytes: Uint8Array, file: string): void {
  if (bytes.byteLength < DENSE_FROM) return;
  let [open, commas, depth, deepest] = [0, 0, 0, 0];
  for (let i = 0, inText = false; i < bytes.length; i++) {
    const c = bytes[i]!;
    if (inText) {
      if (c === 0x5c) i++;
      else if (c === 0x22) inText = false;
    } else if (c === 0x22) inText = true;
    else if (c === 0x7b || c === 0x5b) {
      open++;
      deepest = Math.max(deepest, ++depth);
    } else if (c === 0x7d || c === 0x5d) depth--;
    else if (c === 0x2c) commas++;
  }
  if (deepest <= 8 && open * 12 <= bytes.length && commas * 6 < bytes.length) return;
  throw new WeightsError(
    `${file}: header: expected tensors of 50 bytes and more, found ${open} brackets and ${commas} commas in ${bytes.length} ` +
      `bytes, ${deepest} deep; it is no header of safetensors`,
  );
}

function readMetadata(value: unknown, problems: string[]): Record<string, string> {
  if (isRecord(value) && Object.values(value).every((text) => typeof text === 'string')) {
    return { ...value } as Record<string, string>;
  }
  problems.push(`__metadata__: expected an object of strings, found ${show(value)}`);
  return {};
}

function readEntry(
  name: string,
  value: unknown,
  file: string,
  dataStart: number,
  problems: string[],
): TensorEntry | undefined {
  const fail = (what: string, expected: string, found: unknown): undefined => {
    problems.push(`tensor ${show(name)}: ${what}: expected ${expected}, found ${show(found)}`);
  };
  if (!isRecord(value)) return fail('entry', '{ dtype, shape, data_offsets }', value);
  const { dtype, shape, data_offsets: offsets } = value;
  if (!isDType(dtype)) return fail('dtype', `one of ${DTYPES.join(' ')}`, dtype);
  if (!isCounts(shape)) return fail('shape', 'a list of whole numbers', shape);
  if (!isCounts(offsets) || offsets.length !== 2 || offsets[0]! > offsets[1]!) {
    return fail('data_offsets', '[begin, end] with 0 ≤ begin ≤ end', offsets);
  }
  const [begin, end] = offsets as [number, number];
  const count = elementCount(shape);
  const bytes = count === undefined ? Infinity : count * bytesPerElement(dtype);
  if (end - begin !== bytes) {
    return fail(
      'byte count',
      `${bytes} for ${dtype} [${shape.join(', ')}]`,
      `${end - begin} (${begin} … ${end})`,
    );
  }
  return { name, dtype, shape, file, begin: dataStart + begin, end: dataStart + end };
}

/** Sorted by offset, tensors must follow each other without gap or overlap, up to the end of the file. */
function checkCoverage(
  entries: TensorEntry[],
  dataStart: number,
  fileSize: number,
  problems: string[],
): void {
  let at = dataStart;
  for (const { name, begin, end } of entries.sort((a, b) => a.begin - b.begin || a.end - b.end)) {
    if (begin !== at) {
      const what = begin < at ? 'overlaps the tensor before it' : 'leaves a gap';
      problems.push(
        `tensor ${show(name)}: ${what}: expected to begin at ${at - dataStart}, found ${begin - dataStart}`,
      );
    }
    at = Math.max(at, end);
  }
  if (problems.length === 0 && at !== fileSize) {
    const what = at > fileSize ? 'truncated' : 'bytes after the last tensor';
    problems.push(`${what}: expected a file of ${at} bytes, found ${fileSize}`);
  }
}

/** Duplicate keys of any object in *valid* JSON; JSON.parse silently keeps the last value. */
export function duplicateKeys(text: string): string[] {
  const open: (Set<string> | undefined)[] = []; // one per open bracket; undefined for a list
  const twice: string[] = [];
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === '{') open.push(new Set());
    else if (c === '[') open.push(undefined);
    else if (c === '}' || c === ']') open.pop();
    else if (c === '"') {
      const start = i;
      for (i++; text[i] !== '"'; i++) if (text[i] === '\\') i++;
      let next = i + 1;
      while (/\s/.test(text[next] ?? '')) next++;
      const keys = open.at(-1);
      if (!keys || text[next] !== ':') continue;
      const key = JSON.parse(text.slice(start, i + 1)) as string;
      if (keys.has(key)) twice.push(key);
      keys.add(key);
    }
  }
  return twice;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** A value as short JSON for a message. */
export function show(value: unknown): string {
  let text: string;
  try {
    text = JSON.stringify(value) ?? String(value);
  } catch {
    text = `a ${typeof value} nested too deeply to print`;
  }
  return text.length > 120 ? `${text.slice(0, 117)}…` : text;
}
