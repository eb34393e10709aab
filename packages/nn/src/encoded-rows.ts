/** Rows of stored weights as float32, without a backend: the same numbers as those of codecs.h of backend-native. */
import { spanBytes, spanLength, spansOf } from './stored';
import type { ReadFile, Span, StoredWeight } from './stored';

/** Rows `first` … `first + count - 1` [count, columns]; `first` is even. */
export type RowReader = (first: number, count: number) => Float32Array;

/**
 * Reads a weight that is not in int8 or int4 of this program.
 * @throws Error for one that is, and for a file without a function that reads it
 */
export function rowReader(weight: StoredWeight, readFile?: ReadFile): RowReader {
  const { shape, encoding } = weight;
  const columns = shape[1];
  const [data, ...others] = spansOf(weight);
  /** In memory of their own: they may be unaligned. (`slice` of Node's Buffer does not copy.) */
  const copied = (...part: [span: Span, at: number, length: number]) =>
    new Uint8Array(spanBytes(...part, readFile)).buffer;
  const [first, second] = others.map((span) => new Float32Array(copied(span, 0, spanLength(span))));
  /** Those of rows, of which a number takes `width`. */
  const bytes = (width: number, row: number, count: number) =>
    copied(data!, width * row * columns, Math.ceil(width * count * columns));
  switch (encoding.kind) {
    case 'F32':
      return (row, count) => new Float32Array(bytes(4, row, count));
    case 'BF16':
      return (row, count) => fromBFloat16(new Uint16Array(bytes(2, row, count)));
    case 'F16':
      return (row, count) => Float32Array.from(new Uint16Array(bytes(2, row, count)), fromFloat16);
    case 'BNB8':
      return (row, count) => fromBnb8(new Int8Array(bytes(1, row, count)), first!.subarray(row), columns);
    case 'BNB4':
      return (row, count) => {
        const pairs = new Uint8Array(bytes(0.5, row, count));
        return fromBnb4(pairs, { absmax: first!, table: second! }, row * columns, count * columns);
      };
    case 'INT8':
    case 'INT4':
      throw new Error(
        `expected exact weights, found ones that were rounded to ${encoding.kind.toLowerCase()}`,
      );
  }
}

function fromBFloat16(halves: Uint16Array): Float32Array {
  const values = new Float32Array(halves.length);
  const words = new Uint32Array(values.buffer);
  halves.forEach((half, i) => (words[i] = half << 16));
  return values;
}

function fromFloat16(half: number): number {
  const [sign, exponent, fraction] = [half & 0x8000 ? -1 : 1, (half >> 10) & 31, half & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

/** 1 / 127 as bitsandbytes has it. */
const PER_STEP = Math.fround(7.874015718698502e-3);

function fromBnb8(codes: Int8Array, scales: Float32Array, columns: number): Float32Array {
  return Float32Array.from(codes, (q, i) => Math.fround(q * scales[Math.floor(i / columns)]!) * PER_STEP);
}

/** `count` numbers from number `begin` of the weight on, which is the first of a pair. */
function fromBnb4(
  pairs: Uint8Array,
  { absmax, table }: { absmax: Float32Array; table: Float32Array },
  begin: number,
  count: number,
): Float32Array {
  return new Float32Array(count).map((_, i) => {
    const code = i % 2 === 0 ? pairs[i >> 1]! >> 4 : pairs[i >> 1]! & 15;
    return table[code]! * absmax[Math.floor((begin + i) / 64)]!;
  });
}
