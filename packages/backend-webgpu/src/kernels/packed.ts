/** Operands in 16-bit floats: bfloat16 numbers times a power of two for each row. */
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend, Weight } from '../backend';
import { lineOf } from '../program';
import { DEPTH } from '../tiles';
import type { Tile } from '../tiles';
import { codecs } from '../wgsl/codecs';
import pack from '../wgsl/pack';
import powers from '../wgsl/powers';
import weightPowersCode from '../wgsl/weight-powers';

const multiple = (n: number, of: number) => Math.ceil(n / of) * of;

/** The power of each row of a weight, kept if it is stored. */
export function weightPowers(
  backend: GpuBackend,
  { kind, buffer, view, stored }: Weight,
  b: TensorInfo,
): TensorInfo {
  const make = () => {
    const rows = b.shape[0]!;
    const made = backend.allocate([rows]);
    const program = { name: `weight-powers ${kind}`, code: codecs[kind] + powers + weightPowersCode };
    backend.run(program, lineOf(rows), [buffer, made], [...view, rows]);
    return made;
  };
  return stored ? backend.ofStored(b, make) : make();
}

interface Rows {
  M: number;
  K: number;
  a: TensorInfo;
  turnedB: boolean;
  firstRow?: number;
}

/** The rows of a, in whole tiles of `width` numbers a row; both tensors are to be freed. */
export function packed(
  backend: GpuBackend,
  { M, K, a, turnedB, firstRow = 0 }: Rows,
  tile: Tile,
  wPowers: TensorInfo,
): { numbers: TensorInfo; powers: TensorInfo; width: number } {
  const [rows, width] = [multiple(M, tile.rows), multiple(K, DEPTH)];
  const numbers = backend.allocate([rows, width / 2]); // two in a word
  const made = backend.allocate([rows]);
  const program = {
    name: 'pack',
    directives: ['enable f16;'],
    code: powers + pack,
    constants: { DIVIDE: !turnedB },
  };
  backend.run(program, lineOf(rows), [a, wPowers, numbers, made], [M, K, width, firstRow, rows]);
  return { numbers, powers: made, width };
}
