/** Products with a weight in any encoding. */
import type { Activation, KernelAttrs } from '@blip2/nn';
import type { TensorInfo } from '@tensorflow/tfjs-core';
import type { GpuBackend, Weight } from '../backend';
import { f32, lineOf } from '../program';
import type { Program, Uniform } from '../program';
import functions from '../wgsl/activations';
import { codecs } from '../wgsl/codecs';
import exact from '../wgsl/exact';
import fewRows from '../wgsl/few-rows';
import philox from '../wgsl/philox';
import powers from '../wgsl/powers';
import productCode from '../wgsl/product';
import { tileFor } from '../tiles';
import type { Tile } from '../tiles';
import { dropUniforms } from './dropout';
import type { Drop } from './dropout';
import { packed, weightPowers } from './packed';

const activations = exact + functions;

/** Rows up to which each weight is read once, without tiles. */
const FEW = 8;

/** c [M, N] = activation(a·b + bias) + low-rank + residual. */
export interface Product {
  M: number;
  N: number;
  K: number;
  /** [M, K], or [K, M] if `turnedA`. */
  a: TensorInfo;
  turnedA?: boolean;
  /** [N, K] if `turnedB`, else [K, N]; stored or ordinary. */
  b: TensorInfo;
  turnedB: boolean;
  /** The row of b at which it begins. */
  firstRow?: number;
  bias?: TensorInfo;
  activation?: Activation;
  residual?: TensorInfo;
  /** a [M, R]·b, b [N, R] if `turned`, else [R, N]; times alpha, or with dropout. */
  low?: { a: TensorInfo; b: TensorInfo; R: number; turned: boolean };
  /** A factor of `low` or, without it, of the product. */
  alpha?: number;
  /** Dropout of a, of b, or of the product of `low`. */
  drop?: Drop & { of: 'a' | 'b' | 'low' };
  /** In float32, whatever the precision. */
  exact?: true;
  /** Write into this tensor, from the element `at` on; `adds` to its values. */
  into?: { c: TensorInfo; at: number; adds: boolean };
}

/**
 * Runs it and returns c, in the given shape. In bfloat16, operands are rounded to it, and the numbers are the same at every level, except where
 * few rows need each weight once: their time is that of reading it.
 */
export function product(backend: GpuBackend, p: Product, shape: number[]): TensorInfo {
  const c = p.into?.c ?? backend.allocate(shape);
  const plain = p.turnedB && !p.turnedA && !p.drop && !p.into && !p.firstRow;
  const scaled = p.alpha !== undefined && !p.low;
  if (p.M <= FEW && plain && !scaled) {
    runFewRows(backend, p, c);
    return c;
  }
  const dropped = p.drop && p.drop.of !== 'low';
  const round = backend.precision === 'bfloat16' && !p.exact && !p.turnedA && !dropped;
  runTiles(backend, p, c, {
    round,
    tile: tileFor(round ? backend.tiles.bfloat16 : backend.tiles.float32, p.M),
  });
  return c;
}

function activationCode(activation: Activation | undefined): number {
  return activation === 'gelu' ? 1 : activation === 'relu' ? 2 : 0;
}

const operands = (p: Product, weight: TensorInfo | GPUBuffer, c: TensorInfo) =>
  [p.a, weight, p.bias, p.residual, p.low?.a, p.low?.b, c] as const;

function runFewRows(backend: GpuBackend, p: Product, c: TensorInfo): void {
  const weight = backend.weight(p.b);
  const program: Program = {
    name: `few-rows ${weight.kind}`,
    code: shared(weight.kind) + fewRows,
    constants: { M: p.M, ...constantsOf(p, weight.kind, { round: false, half: false }) },
  };
  const bound = [...operands(p, weight.buffer, c), undefined, undefined];
  backend.run(program, lineOf(Math.ceil(p.N / 4)), bound, uniformsOf(p, weight, 0));
}

/** Runs a product by this tile; `round` rounds the operands to bfloat16. */
export function runTiles(
  backend: GpuBackend,
  p: Product,
  c: TensorInfo,
  { round, tile }: { round: boolean; tile: Tile },
): void {
  const half = tile.level !== 'float32';
  const weight = backend.weight(p.b);
  const wPowers = half ? weightPowers(backend, weight, p.b) : undefined;
  const a = half ? packed(backend, p, tile, wPowers!) : undefined;
  const bound = operands(a ? { ...p, a: a.numbers } : p, weight.buffer, c);
  const grid = [Math.ceil(p.N / tile.columns), Math.ceil(p.M / tile.rows)] as const;
  const program = tileProgram(p, weight.kind, round, tile);
  backend.run(program, grid, [...bound, a?.powers, wPowers], uniformsOf(p, weight, a?.width ?? 0));
  if (a) backend.release(a.numbers, a.powers);
  if (half && !weight.stored) backend.release(wPowers as TensorInfo);
}

const shared = (kind: Weight['kind']) => philox + activations + codecs[kind] + powers + productCode;

interface Operands {
  /** rounded to bfloat16 */
  round: boolean;
  /** in 16-bit floats */
  half: boolean;
}

/** The constants of `product.ts`. */
function constantsOf(
  p: Product,
  kind: Weight['kind'],
  { round, half }: Operands,
): Required<Program>['constants'] {
  const low = !p.low ? 0 : p.low.turned ? 1 : 2;
  return {
    ...{ HALF: half, ROUND_A: round, ROUND_B: round && kind !== 'BF16' },
    ...{ A_T: p.turnedA === true, B_T: p.turnedB, LOW: low, ACT: activationCode(p.activation) },
    ...{ DROP_A: p.drop?.of === 'a', DROP_B: p.drop?.of === 'b', BIAS: p.bias !== undefined },
    ...{ RESIDUAL: p.residual !== undefined, ADDS: p.into?.adds === true },
    SCALED: p.alpha !== undefined && low === 0,
  };
}

function tileProgram(p: Product, kind: Weight['kind'], round: boolean, tile: Tile): Program {
  const { directives, code, constants } = tile.program;
  const half = tile.level !== 'float32';
  return {
    name: `matmul ${tile.name} ${kind}`,
    directives,
    code: shared(kind) + code,
    constants: { ...constants, ...constantsOf(p, kind, { round, half }) },
  };
}

function uniformsOf(p: Product, weight: Weight, width: number): Uniform[] {
  const { key0, key1, least, keep } = dropUniforms(p.drop);
  return [
    ...weight.view,
    ...[p.M, p.N, p.K, p.firstRow ?? 0],
    ...[p.low?.R ?? 0, key0, key1, least],
    ...[f32(keep), f32(p.alpha ?? 1), p.into?.at ?? 0, width],
  ];
}

/** The dropout of a kernel with attributes; undefined at rate 0. */
export function dropOf(
  { rate, key0, key1 }: KernelAttrs<'NnDropout'>,
  of: 'a' | 'b' | 'low',
): Product['drop'] {
  return rate > 0 ? { rate, key0, key1, of } : undefined;
}
