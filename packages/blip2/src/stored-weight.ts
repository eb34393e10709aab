import type { Encoding, Span, StoredWeight } from '@blip2/nn';
import type { TensorEntry, WeightReader } from '@blip2/weights';

type Reader = Pick<WeightReader, 'span' | 'readRaw' | 'readFloat32' | 'readAbsmax'>;

/** Numbers with one absmax in the encoding BNB4. */
const ABSMAX_NUMBERS = 64;

/** A matrix of a checkpoint as a weight in its encoding; undefined for other ranks and encodings. */
export async function storedWeight(entry: TensorEntry, reader: Reader): Promise<StoredWeight | undefined> {
  const [rows, columns] = entry.shape;
  const encoding = entry.shape.length === 2 ? await encodingOf(entry, reader) : undefined;
  return encoding && { shape: [rows!, columns!], data: await storedSpan(reader, entry.name), encoding };
}

async function encodingOf(
  { name, dtype, shape, quantised }: TensorEntry,
  reader: Reader,
): Promise<Encoding | undefined> {
  const floats = async (part: TensorEntry) => spanOf(await reader.readFloat32(part.name));
  switch (quantised?.kind) {
    case 'BNB8':
      return { kind: 'BNB8', scales: await floats(quantised.scales) };
    case 'BNB4': {
      const repeats = quantised.blocksize / ABSMAX_NUMBERS;
      if (repeats < 1) return undefined;
      const absmax = repeated(
        await reader.readAbsmax(name),
        repeats,
        Math.ceil((shape[0]! * shape[1]!) / ABSMAX_NUMBERS),
      );
      return { kind: 'BNB4', absmax: spanOf(absmax), table: await floats(quantised.table) };
    }
    case 'INT4': {
      const parts = [quantised.steps, quantised.scales, quantised.factors];
      const [steps, scales, factors] = await Promise.all(parts.map(({ name }) => storedSpan(reader, name)));
      return { kind: 'INT4', steps: steps!, scales: scales!, factors: factors! };
    }
    case undefined:
      return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16' ? { kind: dtype } : undefined;
  }
}

/** Where a tensor's bytes are; those of a Blob are read. */
const storedSpan = async (reader: Reader, name: string): Promise<Span> =>
  reader.span(name) ?? { bytes: await reader.readRaw(name) };

const spanOf = ({ buffer, byteOffset, byteLength }: Float32Array): Span => ({
  bytes: new Uint8Array(buffer, byteOffset, byteLength),
});

/** Each value several times, cut off at `count`. */
function repeated(values: Float32Array, times: number, count: number): Float32Array {
  return times === 1 ? values : new Float32Array(count).map((_, i) => values[Math.floor(i / times)]!);
}
