/** Random layers for the specs of the kernels that compute many of them. */
import { quantised, storedTensor, tensor } from '@blip2/nn';
import type { Linear, Precision, Tensor, Tensor2D } from '@blip2/nn';
import { expect } from 'vitest';
import { levels, numbers } from './fixtures';

/** Wide enough for packed copies, and no multiple of a vector's width. */
export const [D, F, H] = [68, 95, 4];
export type Kind = 'array' | 'BF16' | 'INT8' | 'INT4';

let seed = 0;
export const random = <T extends Tensor>(...shape: number[]) =>
  tensor<T>(
    numbers(
      shape.reduce((a, b) => a * b, 1),
      1 + (seed++ % 31),
    ).map((x) => x / 8),
    shape,
  );

function weight(kind: Kind, rows: number, columns: number): Tensor2D {
  const values = random<Tensor2D>(rows, columns);
  if (kind === 'array') return values;
  const words = Uint16Array.from(new Uint32Array(values.dataSync().slice().buffer), (bits) => bits >>> 16);
  values.dispose();
  const given = {
    shape: [rows, columns] as [number, number],
    data: { bytes: new Uint8Array(words.buffer) },
    encoding: { kind: 'BF16' as const },
  };
  if (kind === 'BF16') return storedTensor(given, 1)!;
  return storedTensor(quantised(given, undefined, kind === 'INT4' ? 4 : 8)!, 1)!;
}

/** A linear from `width` to `out` columns. */
export function randomLinear(
  kind: Kind,
  [out, width]: [number, number],
  { biased, adapted }: { biased: boolean; adapted: boolean },
): Linear {
  const lora = {
    lora_A: { weight: random<Tensor2D>(8, width) },
    lora_B: { weight: random<Tensor2D>(out, 8) },
    ...{ scaling: 1.7, dropout: 0 },
  };
  const bias = biased && { bias: random<never>(out) };
  if (!adapted) [lora.lora_A, lora.lora_B].forEach(({ weight }) => weight.dispose());
  return { weight: weight(kind, out, width), ...bias, ...(adapted && { lora }) };
}

export const randomNorm = () => ({ weight: random<never>(D), bias: random<never>(D) });

/** Every precision of every level, with each kind of weight. */
export const layerCases = levels.flatMap((level): [string, Precision, Kind][] => [
  [level, 'float32', 'array'],
  [level, 'float32', 'BF16'],
  ...(/bf16|amx/.test(level)
    ? ([
        [level, 'bfloat16', 'array'],
        [level, 'bfloat16', 'BF16'],
      ] as [string, Precision, Kind][])
    : []),
  [level, 'int8', 'INT8'],
  [level, 'int8', 'INT4'],
]);

/** Equal bit for bit, and finite. */
export function expectSame(found: readonly Tensor[], expected: readonly Tensor[]): void {
  expect(found.length).toBe(expected.length);
  for (const [i, tensor] of found.entries()) {
    const [one, other] = [tensor.dataSync(), expected[i]!.dataSync()];
    expect(other.every(Number.isFinite)).toBe(true);
    expect(Buffer.from(one.buffer, one.byteOffset, one.byteLength)).toEqual(
      Buffer.from(other.buffer, other.byteOffset, other.byteLength),
    );
  }
}
