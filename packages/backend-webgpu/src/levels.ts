/** Which levels and tiles a device uses: levels whose numbers are right on it, and the tiles that were fastest. */
import type { GpuBackend } from './backend';
import { adapterName } from './device';
import type { Adapter, Measurements } from './device';
import { CLASSES, LEVELS, tilesOf, usualTiles } from './tiles';
import type { Level, Tile } from './tiles';
import type { Trial } from './try-tile';
import { codecs } from './wgsl/codecs';
import pack from './wgsl/pack';
import powers from './wgsl/powers';
import productCode from './wgsl/product';

const NAMES: Readonly<Record<Level, string>> = {
  matrices: 'subgroup matrices',
  float16: '16-bit floats',
  float32: 'float32 arithmetic',
};

/** Rows of the products that are timed for each class. */
const ROWS = [12, 48, 1024] as const;

/** bfloat16 is the precision `auto` if it takes less than this share of float32's time. */
const GAIN = 0.95;

/** The fastest tile for each class of rows, and its seconds. */
interface Fastest {
  tile: string;
  seconds: number;
}

/** What is kept of an adapter. */
interface Measured {
  float32: Fastest[];
  bfloat16: Fastest[];
  /** Levels whose numbers were wrong. */
  wrong: Level[];
}

/** Times each tile for the classes whose rows it does not exceed. */
async function fastest(
  tiles: readonly Tile[],
  seconds: (tile: Tile, rows: number) => Promise<number>,
): Promise<Fastest[]> {
  const found: Fastest[] = [];
  for (const [i, rows] of ROWS.entries()) {
    const fitting = tiles.filter((tile) => tile.rows <= CLASSES[i]!);
    let best: Fastest | undefined;
    for (const tile of fitting) {
      const taken = await seconds(tile, rows);
      if (!best || taken < best.seconds) best = { tile: tile.name, seconds: taken };
    }
    found.push(best!);
  }
  return found;
}

/** What was kept; undefined if it is of other tiles, or damaged. */
function parseMeasured(text: string | undefined, adapter: Adapter): Measured | undefined {
  const known = new Set(allTiles(adapter).map(({ name }) => name));
  try {
    const measured = JSON.parse(text ?? '') as Measured;
    const lists = [measured.float32, measured.bfloat16];
    const whole = lists.every(
      (list) =>
        list.length === CLASSES.length && list.every(({ tile, seconds }) => known.has(tile) && seconds > 0),
    );
    return whole && measured.wrong.every((level) => LEVELS.includes(level)) ? measured : undefined;
  } catch {
    return undefined;
  }
}

const allTiles = (adapter: Adapter): Tile[] => LEVELS.flatMap((level) => tilesOf(adapter, level));

/** Measurements hold for an adapter, its driver and these shaders. */
async function keyOf(adapter: Adapter): Promise<string> {
  const { vendor, architecture, device, description } = adapter;
  const shaders = allTiles(adapter).flatMap(({ name, program }) => [name, program.code]);
  const code = [powers, pack, productCode, codecs.BF16, ...shaders];
  const bytes = new TextEncoder().encode([vendor, architecture, device, description, ...code].join('\n'));
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return [...hash.subarray(0, 12)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** What a device needs of `GpuBackend` for this. */
export type Prepared = Pick<GpuBackend, 'adapter' | 'tiles' | 'precisions'>;

type Try = <T>(work: (trial: Trial) => Promise<T>) => Promise<T>;

/**
 * Sets tiles and precisions of a backend: those that were measured on this adapter, now or before, or else the usual ones. Adapters that compute
 * on the processor are not measured. Returns what there is to report. @throws Error if the driver fails
 */
export async function prepare(
  backend: Prepared,
  attempt: Try,
  measurements?: Measurements,
): Promise<string[]> {
  const { adapter } = backend;
  const tried: Try = (work) =>
    attempt(work).catch((error: unknown) => {
      throw new Error(tryFailed(adapter, error), { cause: error });
    });
  const kept = adapter.software ? undefined : measurements;
  const key = kept ? await keyOf(adapter) : '';
  const before = kept ? parseMeasured(kept.read(key), adapter) : undefined;
  const measured = before ?? (kept ? await tried((trial) => measure(adapter, trial)) : undefined);
  if (kept && !before) kept.write(key, JSON.stringify(measured));
  const wrong = measured?.wrong ?? (await tried((trial) => wrongLevels(adapter, trial)));
  if (measured) use(backend, measured);
  else {
    const level = LEVELS.find((one) => !wrong.includes(one) && tilesOf(adapter, one).length > 0)!;
    backend.tiles = { ...backend.tiles, bfloat16: usualTiles(adapter, level) };
  }
  return describe(backend, wrong);
}

function tryFailed(adapter: Adapter, error: unknown): string {
  return (
    `${adapterName(adapter)} failed while shaders for products were tried: ${(error as Error).message}; ` +
    'BLIP2_GPU_LEVEL=float32 leaves out those for 16-bit floats and subgroup matrices'
  );
}

/** The tile whose numbers the others must have; a small one is compiled soon. */
const referenceOf = (adapter: Adapter): Tile => usualTiles(adapter, 'float32')[0]!;

async function wrongLevels(adapter: Adapter, trial: Trial): Promise<Level[]> {
  const wrong: Level[] = [];
  for (const level of LEVELS) {
    if (level === 'float32' || tilesOf(adapter, level).length === 0) continue;
    for (const tile of new Set(usualTiles(adapter, level)))
      if (!wrong.includes(level) && !(await trial.agrees(tile, referenceOf(adapter)))) wrong.push(level);
  }
  return wrong;
}

async function measure(adapter: Adapter, trial: Trial): Promise<Measured> {
  const right: Tile[] = [];
  for (const tile of allTiles(adapter)) if (await trial.agrees(tile, referenceOf(adapter))) right.push(tile);
  const has = (tiles: readonly Tile[], level: Level) => tiles.some((tile) => tile.level === level);
  const exact = right.filter(({ level }) => level === 'float32');
  return {
    float32: await fastest(exact, (tile, rows) => trial.seconds(tile, rows, false)),
    bfloat16: await fastest(right, (tile, rows) => trial.seconds(tile, rows, true)),
    wrong: LEVELS.filter((level) => has(allTiles(adapter), level) && !has(right, level)),
  };
}

function use(backend: Prepared, { float32, bfloat16 }: Measured): void {
  const tiles = new Map(allTiles(backend.adapter).map((tile) => [tile.name, tile]));
  const find = (list: Fastest[]) => list.map(({ tile }) => tiles.get(tile)!);
  backend.tiles = { float32: find(float32), bfloat16: find(bfloat16) };
  const faster = bfloat16[2]!.seconds < GAIN * float32[2]!.seconds;
  const first = faster ? 'bfloat16' : 'float32';
  backend.precisions = [first, ...backend.precisions.filter((one) => one !== first)];
}

function describe(backend: Prepared, wrong: readonly Level[]): string[] {
  const { level } = backend.tiles.bfloat16[2]!;
  const { matrixShape } = backend.adapter;
  const sizes =
    level === 'matrices' && matrixShape ? ` ${matrixShape.M}×${matrixShape.N}×${matrixShape.K}` : '';
  return [
    `${NAMES[level]}${sizes} for bfloat16`,
    ...wrong.map(
      (one) => `${NAMES[one]} not used, because ${adapterName(backend.adapter)} fails a check of them`,
    ),
  ];
}
