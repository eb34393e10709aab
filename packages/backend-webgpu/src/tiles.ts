/** Shapes of the tiles in which a shader computes a product, and which one is used for how many rows. */
import type { Adapter } from './device';
import type { Program } from './program';
import { float16, float32 } from './wgsl/matmul';
import { equal, varying } from './wgsl/matrices';

/** How bfloat16 products are computed: float32 arithmetic, 16-bit floats in tiles (`shader-f16`), subgroup matrices (tensor cores). */
export const LEVELS = ['matrices', 'float16', 'float32'] as const;
export type Level = (typeof LEVELS)[number];

/** A configuration of subgroup matrices that a GPU has: M × K times K × N numbers. */
export interface MatrixShape {
  M: number;
  N: number;
  K: number;
  numbers: 'f16' | 'f32';
  /** Most threads of a subgroup, and whether there are subgroups with fewer. */
  subgroup: number;
  varies: boolean;
}

export interface Tile {
  /** The level and the sizes; unique. */
  name: string;
  level: Level;
  /** Rows and columns of c for a group of threads, and the numbers that it sums at a time. */
  rows: number;
  columns: number;
  depth: number;
  threads: number;
  sharedBytes: number;
  program: Required<Pick<Program, 'directives' | 'code' | 'constants'>>;
}

/** Which subgroup a thread belongs to follows from its index, which the compiler cannot know. */
const MATRIX_DIRECTIVES = [
  'enable f16;',
  'enable chromium_experimental_subgroup_matrix;',
  'diagnostic(off, chromium.subgroup_matrix_uniformity);',
];

/** Numbers of a row of packed a are a multiple of this, and so are tiles' depths. */
export const DEPTH = 32;

function ofThreads(level: 'float16' | 'float32', sizes: readonly number[]): Tile {
  const [TX, TY, RM, CN, TK] = sizes as [number, number, number, number, number];
  const [rows, columns, bytes] = [TY * RM, 4 * TX * CN, level === 'float16' ? 2 : 4];
  return {
    name: `${level} ${rows}x${columns}x${TK} ${TX}x${TY}`,
    ...{ level, rows, columns, depth: TK, threads: TX * TY },
    sharedBytes: bytes * TK * (rows + columns + 2),
    program: {
      directives: level === 'float16' ? ['enable f16;'] : [],
      code: level === 'float16' ? float16 : float32,
      constants: { TX, TY, RM, CN, TK },
    },
  };
}

function ofMatrices(shape: MatrixShape, [GM, GN, rows, columns]: readonly number[]): Tile {
  const { M: SM, N: SN, K: SK, numbers, subgroup, varies } = shape;
  const [RM, RN] = [rows! / (GM! * SM), columns! / (GN! * SN)];
  const bytes = numbers === 'f16' ? 2 : 4;
  return {
    name: `matrices ${SM}x${SN}x${SK} ${numbers} ${rows}x${columns} ${GM}x${GN}x${subgroup}${varies ? ' at most' : ''}`,
    ...{ level: 'matrices', rows: rows!, columns: columns!, depth: DEPTH, threads: GM! * GN! * subgroup },
    // at most: depends on the direction of b
    sharedBytes: bytes * ((rows! + columns!) * (DEPTH + 8) + 8 * DEPTH) + 4 * GM! * GN! * SM * SN,
    program: {
      directives: [...(varies ? ['enable subgroups;'] : []), ...MATRIX_DIRECTIVES],
      code: `alias Number = ${numbers};\n${varies ? varying : equal}`,
      constants: { SM, SN, SK, GM: GM!, GN: GN!, RM, RN, TK: DEPTH, SUBGROUP: subgroup, EQUAL: !varies },
    },
  };
}

/** Threads in x and y, rows and vectors of four columns of a thread, depth. */
const OF_THREADS = [
  [8, 8, 2, 2, 16],
  [8, 8, 8, 2, 16],
  [8, 8, 4, 2, 16],
  [16, 8, 4, 1, 16],
  [16, 16, 4, 1, 16],
  [8, 16, 8, 2, 16],
  [16, 16, 8, 2, 16],
  [8, 8, 8, 2, 32],
];

/** Subgroups in m and n, rows, columns. */
const OF_MATRICES = [
  [1, 2, 16, 64],
  [2, 2, 64, 64],
  [1, 4, 32, 128],
  [2, 2, 128, 64],
  [2, 2, 128, 128],
  [4, 2, 128, 128],
];

/** The tiles of a level that fit the adapter. Without measurements, the first is for few rows and the second for more. */
export function tilesOf(adapter: Adapter, level: Level): Tile[] {
  const { matrixShape, float16: has } = adapter;
  if (level !== 'float32' && !has) return [];
  const tiles =
    level !== 'matrices'
      ? OF_THREADS.map((sizes) => ofThreads(level, sizes))
      : OF_MATRICES.flatMap((sizes) => (matrixShape ? ofMatrices(matrixShape, sizes) : []));
  const fits = ({ threads, sharedBytes, program: { constants } }: Tile) =>
    threads <= adapter.threads &&
    sharedBytes <= adapter.sharedBytes &&
    Object.values(constants).every((n) => typeof n === 'boolean' || (Number.isInteger(n) && n > 0));
  return tiles.filter(fits);
}

/** Most rows of a product for each class of tiles: they waste threads on rows that do not exist. */
export const CLASSES = [16, 64, Infinity] as const;

/** A tile for each class. */
export type Tiles = readonly Tile[];

/** Those that are used without measurements. A processor takes half a minute to compile a large tile that is not in float32. */
export function usualTiles(adapter: Adapter, level: Level): Tiles {
  const tiles = tilesOf(adapter, level);
  const [small, large = small] = adapter.software && level !== 'float32' ? tiles.slice(0, 1) : tiles;
  return [small!, large!, large!];
}

export const tileFor = (tiles: Tiles, rows: number): Tile =>
  tiles[CLASSES.findIndex((most) => rows <= most)]!;
