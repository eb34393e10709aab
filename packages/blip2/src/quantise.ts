/** Writes a checkpoint folder with quantised weights, tensor by tensor. */
import { join } from 'node:path';
import { quantised, spansOf } from '@blip2/nn';
import type { StoredWeight } from '@blip2/nn';
import { checkTable, int8Tensors, nf4Tensors } from '@blip2/weights';
import type { DType, TensorEntry, TensorToWrite, WeightReader } from '@blip2/weights';
import { makeFolders, openWeights, writeFileAtomic, writeSharded } from '@blip2/weights/node';
import { ModelError } from './config';
import { copyCompanions, loadConfig } from './folder';
import { isRounded } from './load';
import { blip2Weights } from './model';
import { OWN_QUANTISATION, withoutQuantisation } from './quantisation';
import { configJson } from './save';
import { storedWeight } from './stored-weight';
import { tiesOf, withStoredTies } from './ties';

/**
 * `int8` and `nf4` are bitsandbytes', which transformers loads. `int4` is this program's: 4 bits in the text model, bitsandbytes' int8 in the
 * vision tower and the Q-Former.
 */
export const QUANTISED_FORMATS = ['int8', 'nf4', 'int4'] as const;
export type QuantisedFormat = (typeof QUANTISED_FORMATS)[number];

export interface QuantiseOptions {
  format: QuantisedFormat;
  /** Weights that keep their exact values. */
  exact?: readonly string[];
  /** Weights that are rounded to int8 instead of int4. */
  eight?: readonly string[];
  /** Int4 weights that are made already (`fitInt4`): codes, steps, scales and factors. */
  made?: (name: string) => Uint8Array[] | undefined;
  /** Called with the number of tensors written. */
  onProgress?: (done: number, total: number) => void;
}

/** The format of each quantised weight, by its name. */
export type WrittenQuantised = ReadonlyMap<string, QuantisedFormat>;

/**
 * Writes a quantised copy of a checkpoint folder into another one. One weight is in memory at a time. For int4, the backend native must be
 * active.
 * @throws ModelError, WeightsError for a folder that is no checkpoint
 */
export async function quantiseFolder(dir: string, to: string, o: QuantiseOptions): Promise<WrittenQuantised> {
  const declared = await loadConfig(dir);
  const reader = await openWeights(dir);
  try {
    const config = await withStoredTies(declared, reader);
    const aliases: Record<string, string[]> = {};
    for (const { tensor, alias } of tiesOf(config)) (aliases[tensor] ??= []).push(alias);
    const table = checkTable(reader, blip2Weights(config), { aliases, ignore: [/\.position_ids$/] });
    const entries = [...new Set(table.values())];
    const formats = new Map<string, QuantisedFormat>();
    for (const entry of entries) {
      const format = formatOf(entry, o);
      if (format) formats.set(entry.name, format);
    }
    const int4 = int4Writer(reader, o);
    const tensors = entries.flatMap((entry) => {
      const format = formats.get(entry.name);
      if (format === 'int4') return int4(entry);
      const [rows, columns] = entry.shape;
      const read = () => reader.readFloat32(entry.name);
      const matrix = { name: entry.name, shape: [rows!, columns!] as const, read };
      if (format) return format === 'int8' ? int8Tensors(matrix) : nf4Tensors(matrix, dtypeOf(entry));
      return [copied(entry, reader)];
    });
    await makeFolders(to);
    await copyCompanions(dir, to);
    await writeSharded(to, counted(tensors, o.onProgress), { align: ALIGNMENT });
    const quantization_config = describe(entries, formats, o.format, config.raw);
    const json = { ...withoutQuantisation(config.raw), quantization_config };
    await writeFileAtomic(join(to, 'config.json'), `${configJson(json)}\n`);
    return formats;
  } finally {
    await reader.close();
  }
}

/** Calls `onProgress` at each tensor that is written, and lets other work run. */
function counted(
  tensors: readonly TensorToWrite[],
  onProgress: QuantiseOptions['onProgress'],
): TensorToWrite[] {
  let done = 0;
  return tensors.map((tensor) => ({
    ...tensor,
    data: async () => {
      await new Promise((resolve) => setImmediate(resolve));
      onProgress?.(++done, tensors.length);
      return typeof tensor.data === 'function' ? tensor.data() : tensor.data;
    },
  }));
}

/** The kernels read the codes in place where they begin at a multiple of this. */
const ALIGNMENT = 64;

/** transformers keeps the Q-Former exact (`_keep_in_fp32_modules`), so a file for bitsandbytes has to. */
const KEPT = /^qformer\./;

/** How a weight is written; undefined for one that is copied. */
function formatOf(
  entry: TensorEntry,
  { format, exact, eight }: QuantiseOptions,
): QuantisedFormat | undefined {
  const { name, shape } = entry;
  if (!isRounded(name, { shape }) || exact?.includes(name)) return undefined;
  if (format !== 'int4') return KEPT.test(name) ? undefined : format;
  return name.startsWith('language_model.') && !eight?.includes(name) ? 'int4' : 'int8';
}

/** As it is stored; a weight that was quantised already, as float32. */
function copied(entry: TensorEntry, reader: WeightReader): TensorToWrite {
  const { name, dtype, shape, quantised } = entry;
  if (quantised) return { name, dtype: 'F32', shape, data: () => reader.readFloat32(name) };
  return { name, dtype, shape, data: () => reader.readRaw(name) };
}

const dtypeOf = ({ dtype, quantised }: TensorEntry): DType => (quantised ? 'F32' : dtype);

/**
 * The tensors of an int4 weight: `X`, `X.steps`, `X.scales`, `X.factors`. They are written in two places of the file, and only the last weight
 * is kept, so each is made twice.
 */
function int4Writer(reader: WeightReader, { made: given }: QuantiseOptions) {
  let last: { name: string; parts: Promise<Uint8Array[]> } | undefined;
  const make = async (entry: TensorEntry) => {
    const parts = given?.(entry.name);
    if (parts) return parts;
    const weight =
      (await storedWeight(entry, reader)) ?? floatsOf(entry, await reader.readFloat32(entry.name));
    const made = quantised(weight, undefined, 4);
    if (!made) throw new ModelError('quantise: int4 needs the backend native');
    return spansOf(made).map(({ bytes }) => bytes as Uint8Array);
  };
  return (entry: TensorEntry): TensorToWrite[] => {
    const { name, shape } = entry;
    const [rows, columns] = shape as [number, number];
    const groups = Math.ceil(rows / 32) * Math.ceil(columns / 64);
    const part = (i: number) => async () => {
      if (last?.name !== name) last = { name, parts: make(entry) };
      return (await last.parts)[i]!;
    };
    return [
      { name, dtype: 'U8', shape: [groups, 1024], data: part(0) },
      { name: `${name}.steps`, dtype: 'U8', shape: [groups, 32], data: part(1) },
      { name: `${name}.scales`, dtype: 'F32', shape: [rows], data: part(2) },
      { name: `${name}.factors`, dtype: 'F32', shape: [columns], data: part(3) },
    ];
  };
}

function floatsOf({ shape }: TensorEntry, values: Float32Array): StoredWeight {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { shape: [shape[0]!, shape[1]!], data: { bytes }, encoding: { kind: 'F32' } };
}

/** `quantization_config`: what transformers needs to load the file, or what makes it refuse one of this program. */
function describe(
  entries: readonly TensorEntry[],
  formats: WrittenQuantised,
  format: QuantisedFormat,
  raw: Record<string, unknown>,
) {
  if (format === 'int4') return OWN_QUANTISATION;
  // Every linear layer that is not listed is expected to be quantised.
  const linear = entries.filter(({ name, shape }) => shape.length === 2 && name.endsWith('.weight'));
  const skipped = linear
    .filter(({ name }) => !formats.has(name))
    .map(({ name }) => name.replace(/\.weight$/, ''));
  const common = { quant_method: 'bitsandbytes', llm_int8_skip_modules: [...skipped, 'lm_head'] };
  if (format === 'int8') return { ...common, load_in_8bit: true, load_in_4bit: false, llm_int8_threshold: 6 };
  const four = {
    bnb_4bit_quant_type: 'nf4',
    bnb_4bit_use_double_quant: false,
    bnb_4bit_quant_storage: 'uint8',
  };
  return {
    ...common,
    load_in_8bit: false,
    load_in_4bit: true,
    ...four,
    bnb_4bit_compute_dtype: raw['dtype'] ?? raw['torch_dtype'] ?? 'float32',
  };
}
