/** Element types of safetensors files and their conversion to and from float32. */
import { WeightsError } from './errors';

export type DType = 'F64' | 'F32' | 'F16' | 'BF16' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';

const BYTES: Record<DType, number> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

export const DTYPES = Object.keys(BYTES) as DType[];

export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(BYTES, value);
}

/** Bytes of one element. */
export function bytesPerElement(dtype: DType): number {
  return BYTES[dtype];
}

/** Number of elements of a shape; 1 for a scalar, `undefined` if it is not a safe integer. */
export function elementCount(shape: readonly number[]): number | undefined {
  if (shape.includes(0)) return 0;
  const count = shape.reduce((product, size) => product * size, 1);
  return Number.isSafeInteger(count) ? count : undefined;
}

/** float32 bit patterns of all 65,536 half-precision values (256 KiB), made on first use. */
let halfBits: Uint32Array | undefined;

function halfTable(): Uint32Array {
  if (halfBits) return halfBits;
  const table = new Uint32Array(65_536);
  const asFloat = new Float32Array(1);
  const asBits = new Uint32Array(asFloat.buffer);
  for (let half = 0; half < 65_536; half++) {
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const fraction = half & 0x3ff;
    if (exponent === 31) table[half] = sign | 0x7f800000 | (fraction << 13);
    else if (exponent > 0) table[half] = sign | ((exponent + 112) << 23) | (fraction << 13);
    else {
      asFloat[0] = fraction * 2 ** -24; // subnormal halves are normal float32 values
      table[half] = sign | asBits[0]!;
    }
  }
  return (halfBits = table);
}

/** F16 bit patterns to float32, exactly; NaN payloads are kept. Writes `to[at …]`. */
export function halfToFloat(from: Uint16Array, to: Float32Array, at = 0): void {
  const bits = new Uint32Array(to.buffer, to.byteOffset, to.length);
  const table = halfTable();
  for (let i = 0; i < from.length; i++) bits[at + i] = table[from[i]!]!;
}

/** BF16 bit patterns to float32, exactly. Writes `to[at …]`. */
export function bfloatToFloat(from: Uint16Array, to: Float32Array, at = 0): void {
  const bits = new Uint32Array(to.buffer, to.byteOffset, to.length);
  for (let i = 0; i < from.length; i++) bits[at + i] = from[i]! << 16;
}

/** float32 to BF16 bit patterns, to nearest, ties to even; NaN stays NaN, overflow becomes infinity. */
export function floatToBfloat(from: Float32Array): Uint16Array {
  const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
  const to = new Uint16Array(from.length);
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]!;
    const isNaN = (b & 0x7fffffff) > 0x7f800000;
    to[i] = isNaN ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
  }
  return to;
}

/** float32 to F16 bit patterns, to nearest, ties to even; beyond ±65,520 becomes infinity. */
export function floatToHalf(from: Float32Array): Uint16Array {
  const bits = new Uint32Array(from.buffer, from.byteOffset, from.length);
  const to = new Uint16Array(from.length);
  for (let i = 0; i < bits.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const magnitude = bits[i]! & 0x7fffffff;
    if (magnitude > 0x7f800000) to[i] = sign | 0x7e00 | ((magnitude >>> 13) & 0x1ff);
    else if (magnitude >= 0x477ff000) to[i] = sign | 0x7c00;
    else if (magnitude >= 0x38800000)
      to[i] = sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
    else {
      // Subnormal half: units of 2^-24. Scaling by a power of two is exact, so one rounding to even remains.
      const units = Math.abs(from[i]!) * 2 ** 24;
      const floor = Math.floor(units);
      const rest = units - floor;
      to[i] = sign | (floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0));
    }
  }
  return to;
}

/** float32 represents every integer up to this one exactly. */
const EXACT = 2 ** 24;

/**
 * Elements of any dtype as float32, written to `to[at …]`. Floats are rounded; integers must be exact in float32.
 * @throws WeightsError for an integer that float32 cannot represent
 */
export function toFloat32(
  dtype: DType,
  bytes: Uint8Array,
  to: Float32Array,
  at: number,
  where: string,
): void {
  const count = bytes.byteLength / BYTES[dtype];
  const { buffer, byteOffset } = bytes.byteOffset % BYTES[dtype] === 0 ? bytes : bytes.slice();
  switch (dtype) {
    case 'F32':
      return to.set(new Float32Array(buffer, byteOffset, count), at);
    case 'F64':
      return to.set(new Float64Array(buffer, byteOffset, count), at);
    case 'F16':
      return halfToFloat(new Uint16Array(buffer, byteOffset, count), to, at);
    case 'BF16':
      return bfloatToFloat(new Uint16Array(buffer, byteOffset, count), to, at);
    case 'I16':
      return to.set(new Int16Array(buffer, byteOffset, count), at);
    case 'I8':
      return to.set(new Int8Array(buffer, byteOffset, count), at);
    case 'U8':
    case 'BOOL':
      return to.set(bytes, at);
    case 'I32':
    case 'I64': {
      const values =
        dtype === 'I32'
          ? new Int32Array(buffer, byteOffset, count)
          : new BigInt64Array(buffer, byteOffset, count);
      for (let i = 0; i < count; i++) {
        const value = Number(values[i]!);
        if (Math.abs(value) > EXACT) {
          throw new WeightsError(
            `${where}: element ${at + i} is ${values[i]}, which float32 cannot hold exactly (limit ±${EXACT}); use readRaw for ${dtype}`,
          );
        }
        to[at + i] = value;
      }
    }
  }
}
