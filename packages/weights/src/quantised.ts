/**
 * Quantised weights. A weight with the tensors of its scales and tables becomes one entry, which has the weight's shape:
 * bitsandbytes' int8 (`P.weight`, `P.SCB`, `P.weight_format`), its nf4 and fp4 (`X`, `X.absmax`, `X.quant_map`,
 * `X.quant_state.bitsandbytes__nf4` and, with double quantisation, `X.nested_absmax` and `X.nested_quant_map`), and INT4 of this program
 * (`X`, `X.steps`, `X.scales`, `X.factors`; decision 0017).
 * References: bitsandbytes 0.50, functional.py (`QuantState.as_dict`) and nn/modules.py (`Linear8bitLt._save_to_state_dict`).
 */
import { bytesPerElement, elementCount, toFloat32 } from './dtype';
import { WeightsError } from './errors';
import { isRecord, list, show } from './header';
import type { TensorEntry } from './header';

/** The tensors that belong to a quantised weight. */
export type Quantisation =
  | { readonly kind: 'BNB8'; readonly scales: TensorEntry }
  | {
      readonly kind: 'BNB4';
      /** `nf4` or `fp4` */
      readonly type: string;
      readonly absmax: TensorEntry;
      readonly table: TensorEntry;
      /** Numbers with one absmax, counted row after row. */
      readonly blocksize: number;
      /** Of absmax, if that is quantised too. */
      readonly nested?: { absmax: TensorEntry; table: TensorEntry; blocksize: number; offset: number };
    }
  | {
      readonly kind: 'INT4';
      readonly steps: TensorEntry;
      readonly scales: TensorEntry;
      readonly factors: TensorEntry;
    };

/** Reads the stored bytes of an entry. */
export type ReadBytes = (entry: TensorEntry) => Promise<Uint8Array>;

/** Parts of names that only weights of bitsandbytes have: functional.py, `QuantState.as_dict`. */
const FOUR_BITS =
  /^(.+)\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(?:nf4|fp4))$/;
const EIGHT_BITS = /^(.+)\.(SCB|weight_format)$/;
const OWN = /^(.+)\.(steps|scales|factors)$/;

/** The companions of each weight, by the last part of their names. */
function companionsOf(stored: ReadonlyMap<string, TensorEntry>): Map<TensorEntry, Map<string, TensorEntry>> {
  const found = new Map<TensorEntry, Map<string, TensorEntry>>();
  for (const entry of stored.values()) {
    const eight = EIGHT_BITS.exec(entry.name);
    const [, base, part = ''] = FOUR_BITS.exec(entry.name) ?? eight ?? OWN.exec(entry.name) ?? [];
    const weight = base === undefined ? undefined : stored.get(eight ? `${base}.weight` : base);
    if (!weight) continue;
    const parts = found.get(weight) ?? new Map<string, TensorEntry>();
    found.set(weight, parts.set(part, entry));
  }
  // The file of rounded int8 weights has scales and factors, but no steps.
  for (const [weight, parts] of found)
    if (!parts.has('steps') && [...parts.keys()].every((part) => part === 'scales' || part === 'factors'))
      found.delete(weight);
  return found;
}

/**
 * The entries of a checkpoint with one for each quantised weight, without its companions.
 * @throws WeightsError that lists every weight whose companions do not fit
 */
export async function withQuantised(
  stored: ReadonlyMap<string, TensorEntry>,
  read: ReadBytes,
): Promise<Map<string, TensorEntry>> {
  const entries = new Map(stored);
  const problems: string[] = [];
  let file = '';
  for (const [weight, parts] of companionsOf(stored)) {
    const fail = (what: string): never => {
      throw new WeightsError(`${show(weight.name)}: ${what}`);
    };
    try {
      entries.set(weight.name, await resolved(weight, parts, read, fail));
    } catch (error) {
      if (!(error instanceof WeightsError)) throw error;
      problems.push(error.message);
      file ||= weight.file;
    }
    for (const { name } of parts.values()) entries.delete(name);
  }
  if (problems.length > 0)
    throw new WeightsError(
      `${file}: quantised weights that cannot be read:\n${list(problems, 12)}`,
      problems,
    );
  return entries;
}

type Fail = (what: string) => never;
type Parts = ReadonlyMap<string, TensorEntry>;

async function resolved(
  weight: TensorEntry,
  parts: Parts,
  read: ReadBytes,
  fail: Fail,
): Promise<TensorEntry> {
  const state = [...parts.keys()].find((part) => part.startsWith('quant_state.'));
  if (state) return fourBits(weight, parts, { entry: parts.get(state)!, read, fail });
  if (parts.has('SCB') || parts.has('weight_format')) return eightBits(weight, parts, read, fail);
  if (parts.has('steps')) return ownFourBits(weight, parts, fail);
  return fail(
    `expected its companion "quant_state.bitsandbytes__nf4", found only ${[...parts.keys()].join(', ')}`,
  );
}

/** In `Linear8bitLt`, 1 to 3 are layouts of tensor cores, which bitsandbytes no longer writes. */
async function eightBits(
  weight: TensorEntry,
  parts: Parts,
  read: ReadBytes,
  fail: Fail,
): Promise<TensorEntry> {
  const { dtype, shape } = weight;
  if (dtype !== 'I8' || shape.length !== 2)
    fail(`bitsandbytes int8: expected an I8 matrix, found ${text(weight)}`);
  const format = parts.get('weight_format');
  const [layout = 0] = format ? await read(format) : [];
  if (layout !== 0)
    fail(`bitsandbytes int8: expected weight_format 0 (rows), found ${layout}; save it again in Python`);
  return { ...weight, quantised: { kind: 'BNB8', scales: floats(parts, 'SCB', shape[0]!, fail) } };
}

/** `{"quant_type", "blocksize", "dtype", "shape", "nested_blocksize"?, "nested_dtype"?, "nested_offset"?}` as bytes of JSON. */
async function fourBits(
  weight: TensorEntry,
  parts: Parts,
  { entry, read, fail }: { entry: TensorEntry; read: ReadBytes; fail: Fail },
): Promise<TensorEntry> {
  const type = entry.name.slice(-3);
  const expect = (fits: boolean, what: string, found: unknown) =>
    fits || fail(`bitsandbytes ${type}: expected ${what}, found ${show(found)}`);
  expect(entry.end - entry.begin < 65_536, 'a quant_state of a few hundred bytes', entry.end - entry.begin);
  const state = parseState(await read(entry));
  expect(state !== undefined, 'a quant_state in JSON', 'other bytes');
  const { shape, blocksize, nested_blocksize, nested_offset } = state!;
  expect(isShape(shape), 'a shape of whole numbers', shape);
  expect(isBlocksize(blocksize), 'a blocksize that is a power of 2 from 32 to 4096', blocksize);
  const [size, count] = [blocksize as number, elementCount(shape as number[])!];
  expect(
    weight.end - weight.begin === Math.ceil(count / 2),
    `${Math.ceil(count / 2)} bytes`,
    weight.end - weight.begin,
  );
  const blocks = Math.ceil(count / size);
  const common = {
    kind: 'BNB4',
    type,
    blocksize: size,
    table: floats(parts, 'quant_map', 16, fail),
  } as const;
  const at = { ...weight, shape: shape as number[] };
  if (!parts.has('nested_absmax'))
    return { ...at, quantised: { ...common, absmax: floats(parts, 'absmax', blocks, fail) } };
  expect(
    isBlocksize(nested_blocksize),
    'a nested_blocksize that is a power of 2 from 32 to 4096',
    nested_blocksize,
  );
  expect(Number.isFinite(nested_offset), 'a number as nested_offset', nested_offset);
  const absmax = parts.get('absmax');
  expect(
    absmax?.dtype === 'U8' && elementCount(absmax.shape) === blocks,
    `absmax U8 [${blocks}]`,
    absmax && text(absmax),
  );
  const nested = {
    absmax: floats(parts, 'nested_absmax', Math.ceil(blocks / (nested_blocksize as number)), fail),
    table: floats(parts, 'nested_quant_map', 256, fail),
    blocksize: nested_blocksize as number,
    offset: Math.fround(nested_offset as number),
  };
  return { ...at, quantised: { ...common, absmax: absmax!, nested } };
}

/** Rows in blocks of 32 and columns in groups of 64, in the order of the kernels; the shape is that of scales and factors. */
function ownFourBits(weight: TensorEntry, parts: Parts, fail: Fail): TensorEntry {
  const [scales, factors, steps] = ['scales', 'factors', 'steps'].map((part) => parts.get(part));
  const [rows, columns] = [scales?.shape[0] ?? 0, factors?.shape[0] ?? 0];
  const [down, across] = [Math.ceil(rows / 32), Math.ceil(columns / 64)];
  const fits =
    [scales, factors].every((part) => part?.dtype === 'F32' && part.shape.length === 1) &&
    [weight, steps].every((part) => part?.dtype === 'U8') &&
    weight.end - weight.begin === down * across * 1024 &&
    steps!.end - steps!.begin === down * across * 32 &&
    rows * columns > 0;
  if (!fits)
    fail(
      `INT4: expected blocks, steps, scales and factors of one matrix, found ${[weight, ...parts.values()].map(text).join(', ')}`,
    );
  return {
    ...weight,
    shape: [rows, columns],
    quantised: { kind: 'INT4', steps: steps!, scales: scales!, factors: factors! },
  };
}

/** A companion of `count` floats. */
function floats(parts: Parts, part: string, count: number, fail: Fail): TensorEntry {
  const entry = parts.get(part);
  if (entry && /^B?F\d+$/.test(entry.dtype) && elementCount(entry.shape) === count) return entry;
  return fail(`expected ${part} of ${count} floats, found ${entry ? text(entry) : 'none'}`);
}

function parseState(bytes: Uint8Array): Record<string, unknown> | undefined {
  try {
    const json: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
    return isRecord(json) ? json : undefined;
  } catch {
    return undefined;
  }
}

const isShape = (value: unknown): value is number[] =>
  Array.isArray(value) &&
  value.length > 0 &&
  value.length <= 8 &&
  value.every((size) => Number.isSafeInteger(size) && size > 0) &&
  elementCount(value as number[]) !== undefined;

const isBlocksize = (value: unknown): value is number =>
  typeof value === 'number' && value >= 32 && value <= 4096 && Number.isInteger(Math.log2(value));

const text = ({ name, dtype, shape }: TensorEntry) => `${show(name)} ${dtype} [${shape.join(', ')}]`;

async function readFloats(entry: TensorEntry, read: ReadBytes): Promise<Float32Array> {
  const bytes = await read(entry);
  const values = new Float32Array(bytes.byteLength / bytesPerElement(entry.dtype));
  toFloat32(entry.dtype, bytes, values, 0, `${entry.file}: tensor ${show(entry.name)}`);
  return values;
}

/** The scales of a weight, one absmax for each `blocksize` numbers: dequantised first, if they are quantised. */
export async function absmaxOf(
  q: Extract<Quantisation, { kind: 'BNB4' }>,
  read: ReadBytes,
): Promise<Float32Array> {
  if (!q.nested) return readFloats(q.absmax, read);
  const { blocksize, offset } = q.nested;
  const [table, scales] = [await readFloats(q.nested.table, read), await readFloats(q.nested.absmax, read)];
  const { fround } = Math;
  return Float32Array.from(
    await read(q.absmax),
    (byte, i) => fround(table[byte]! * scales[Math.floor(i / blocksize)]!) + offset,
  );
}

/** The numbers of a quantised weight in float32, rounded as bitsandbytes rounds them. */
export async function dequantise(
  entry: TensorEntry,
  q: Quantisation,
  read: ReadBytes,
): Promise<Float32Array> {
  const bytes = await read(entry);
  switch (q.kind) {
    case 'BNB8':
      return dequantise8(bytes, await readFloats(q.scales, read), entry.shape[1]!);
    case 'BNB4':
      return dequantise4(
        bytes,
        await readFloats(q.table, read),
        await absmaxOf(q, read),
        q.blocksize,
        entry.shape,
      );
    case 'INT4':
      return dequantiseOwn(
        bytes,
        await read(q.steps),
        await readFloats(q.scales, read),
        await readFloats(q.factors, read),
      );
  }
}

/** 1 / 127, as in `int8_vectorwise_dequant`. */
const NTH = Math.fround(7.874015718698502e-3);

function dequantise8(bytes: Uint8Array, scales: Float32Array, columns: number): Float32Array {
  const q = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from(q, (n, i) => Math.fround(n * scales[Math.floor(i / columns)]!) * NTH);
}

/** The first of two numbers is in the high half of its byte. */
function dequantise4(
  bytes: Uint8Array,
  table: Float32Array,
  absmax: Float32Array,
  blocksize: number,
  shape: readonly number[],
): Float32Array {
  const values = new Float32Array(elementCount(shape)!);
  for (let i = 0; i < values.length; i++) {
    const code = i % 2 === 0 ? bytes[i >> 1]! >> 4 : bytes[i >> 1]! & 15;
    values[i] = table[code]! * absmax[Math.floor(i / blocksize)]!;
  }
  return values;
}

/** A number is (code - 8) · step · scale · factor. Within 32 rows: [columns / 8][32 rows][4 bytes], byte i has columns i and i + 4. */
function dequantiseOwn(
  bytes: Uint8Array,
  steps: Uint8Array,
  scales: Float32Array,
  factors: Float32Array,
): Float32Array {
  const [rows, columns, across] = [scales.length, factors.length, Math.ceil(factors.length / 64)];
  const values = new Float32Array(rows * columns);
  for (let n = 0; n < rows; n++) {
    const panel = Math.floor(n / 32) * across;
    for (let k = 0; k < columns; k++) {
      const byte = bytes[panel * 1024 + (k >> 3) * 128 + (n % 32) * 4 + (k % 4)]!;
      const code = k % 8 < 4 ? byte & 15 : byte >> 4;
      const step = steps[(panel + (k >> 6)) * 32 + (n % 32)]!;
      values[n * columns + k] = Math.fround((code - 8) * step * scales[n]!) * factors[k]!;
    }
  }
  return values;
}
