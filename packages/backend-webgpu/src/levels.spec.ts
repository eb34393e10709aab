/** Which levels and tiles are used, with trials that a test makes up. */
import { PRECISIONS } from '@blip2/nn';
import { describe, expect, it } from 'vitest';
import type { Adapter } from './device';
import { prepare } from './levels';
import type { Prepared } from './levels';
import { CLASSES, LEVELS, tileFor, tilesOf, usualTiles } from './tiles';
import type { Level, MatrixShape, Tile } from './tiles';
import type { Trial } from './try-tile';

function shapeOf(M: number, N: number, K: number, numbers: 'f16' | 'f32', subgroup: number): MatrixShape {
  return { M, N, K, numbers, subgroup, varies: false };
}

const card: Adapter = {
  ...{ vendor: 'v', architecture: 'a', device: 'd', description: 'Card X, driver 1' },
  ...{ software: false, float16: true, matrixShape: shapeOf(16, 16, 16, 'f16', 32) },
  ...{ largestBinding: 2 ** 31, sharedBytes: 49152, threads: 1024 },
};

function backendOf(adapter: Adapter): Prepared {
  const tiles = usualTiles(adapter, 'float32');
  return { adapter, tiles: { float32: tiles, bfloat16: tiles }, precisions: PRECISIONS };
}

/** Seconds of a level; tiles of 128 columns are faster by a third. */
function trialOf(seconds: Record<Level, number>, wrong: readonly Level[] = []) {
  const timed: string[] = [];
  const trial: Trial = {
    agrees: async ({ level }) => !wrong.includes(level),
    seconds: async (tile, rows) => {
      timed.push(`${tile.name} ${rows}`);
      return seconds[tile.level] * (tile.columns === 128 ? 2 / 3 : 1);
    },
  };
  return { timed, attempt: <T>(work: (trial: Trial) => Promise<T>) => work(trial) };
}

/** A folder of measurements in memory. */
function folder() {
  const texts = new Map<string, string>();
  return {
    texts,
    read: (key: string) => texts.get(key),
    write: (key: string, text: string) => void texts.set(key, text),
  };
}

const levelsOf = ({ tiles }: Prepared) => tiles.bfloat16.map(({ level }) => level);

describe('levels of bfloat16 products', () => {
  it('names the variable that leaves levels out, if the driver fails while tiles are tried', async () => {
    const lost = () => Promise.reject(new Error('the device was lost'));
    for (const kept of [folder(), undefined])
      await expect(prepare(backendOf(card), lost, kept)).rejects.toThrow(
        /Card X, driver 1.*the device was lost.*BLIP2_GPU_LEVEL=float32/s,
      );
  });

  it('are the fastest in each class of rows, and a level is not used for more than its tiles', async () => {
    const backend = backendOf(card);
    const { attempt } = trialOf({ matrices: 1, float16: 2, float32: 3 });
    expect(await prepare(backend, attempt, folder())).toEqual(['subgroup matrices 16×16×16 for bfloat16']);
    expect(levelsOf(backend)).toEqual(['matrices', 'matrices', 'matrices']);
    backend.tiles.bfloat16.forEach(({ rows }, i) => expect(rows).toBeLessThanOrEqual(CLASSES[i]));
    expect(backend.tiles.bfloat16[2].columns).toBe(128);
    expect(new Set(backend.tiles.float32.map(({ level }) => level))).toEqual(new Set(['float32']));
    expect(tileFor(backend.tiles.bfloat16, 17)).toBe(backend.tiles.bfloat16[1]);
  });

  it('make bfloat16 the precision auto only where it was measured to be faster', async () => {
    const [faster, slower, unknown] = [card, card, card].map(backendOf);
    await prepare(faster, trialOf({ matrices: 1, float16: 2, float32: 3 }).attempt, folder());
    expect(faster.precisions[0]).toBe('bfloat16');
    await prepare(slower, trialOf({ matrices: 3, float16: 3, float32: 1 }).attempt, folder());
    expect(slower.precisions[0]).toBe('float32');
    expect(levelsOf(slower)[2]).toBe('float32');
    await prepare(unknown, trialOf({ matrices: 1, float16: 1, float32: 3 }).attempt);
    expect(unknown.precisions[0]).toBe('float32');
    expect(levelsOf(unknown)).toEqual(['matrices', 'matrices', 'matrices']);
    for (const { precisions } of [faster, slower, unknown])
      expect([...precisions].sort()).toEqual([...PRECISIONS].sort()); // int8 and int4 stay
  });

  it.each([
    [
      ['matrices'],
      'float16',
      '16-bit floats',
      'subgroup matrices not used, because Card X, driver 1 fails a check of them',
    ],
    [['matrices', 'float16'], 'float32', 'float32 arithmetic', '16-bit floats not used, because Card X'],
  ] as const)('that compute other numbers than float32 (%j) are not used', async (wrong, used, name, why) => {
    for (const measurements of [undefined, folder()]) {
      const backend = backendOf(card);
      const said = await prepare(
        backend,
        trialOf({ matrices: 1, float16: 2, float32: 3 }, wrong).attempt,
        measurements,
      );
      expect(levelsOf(backend)).toEqual([used, used, used]);
      expect(said[0]).toBe(`${name} for bfloat16`);
      expect(said.join()).toContain(why);
    }
  });

  it('are measured once for an adapter and its driver', async () => {
    const kept = folder();
    const first = trialOf({ matrices: 1, float16: 2, float32: 3 });
    const before = backendOf(card);
    await prepare(before, first.attempt, kept);
    expect(first.timed.length).toBeGreaterThan(10);
    const again = trialOf({ matrices: 3, float16: 2, float32: 1 });
    const after = backendOf(card);
    await prepare(after, again.attempt, kept);
    expect(again.timed).toEqual([]);
    expect(after.tiles).toEqual(before.tiles);
    expect(after.precisions).toEqual(before.precisions);
    await prepare(backendOf({ ...card, description: 'Card X, driver 2' }), again.attempt, kept);
    expect(again.timed.length).toBe(first.timed.length);
    expect(kept.texts.size).toBe(2);
  });

  it.each(['', '{', '{"float32":[]}', 'null', 'TILES'])(
    'are measured again if the file has %j',
    async (text) => {
      const kept = folder();
      const { timed, attempt } = trialOf({ matrices: 1, float16: 2, float32: 3 });
      await prepare(backendOf(card), attempt, kept);
      const [[key, good]] = kept.texts;
      timed.length = 0;
      kept.texts.set(key, text === 'TILES' ? good.replaceAll('16x64', '17x64') : text);
      await prepare(backendOf(card), attempt, kept);
      expect(timed.length).toBeGreaterThan(10);
      expect(kept.texts.get(key)).toBe(good);
    },
  );

  it('of an adapter that computes on the processor are neither timed nor kept', async () => {
    const kept = folder();
    const { timed, attempt } = trialOf({ matrices: 1, float16: 2, float32: 3 });
    const backend = backendOf({ ...card, software: true });
    await prepare(backend, attempt, kept);
    expect([timed, kept.texts.size]).toEqual([[], 0]);
    expect(levelsOf(backend)).toEqual(['matrices', 'matrices', 'matrices']);
    expect(backend.precisions[0]).toBe('float32');
  });
});

describe('tiles', () => {
  const shapes = [
    shapeOf(16, 16, 16, 'f16', 32),
    shapeOf(8, 8, 8, 'f16', 8),
    shapeOf(8, 8, 8, 'f32', 32),
    shapeOf(8, 16, 16, 'f16', 16),
    shapeOf(16, 8, 16, 'f16', 64),
  ];

  it.each(shapes)(
    'of matrices $M×$N×$K in $numbers divide their work evenly among threads',
    (matrixShape) => {
      const tiles = LEVELS.flatMap((level) => tilesOf({ ...card, matrixShape }, level));
      expect(new Set(tiles.map(({ name }) => name)).size).toBe(tiles.length);
      expect(tiles.length).toBeGreaterThan(16);
      for (const { name, level, rows, columns, depth, threads } of tiles) {
        const numbers = (level === 'float32' ? 1 : 4) * threads; // of a that are loaded at once
        expect((rows * depth) % numbers, name).toBe(0);
        expect((columns * depth) % (4 * threads), name).toBe(0);
      }
    },
  );

  it('that do not fit an adapter are left out', () => {
    const small = { ...card, sharedBytes: 16384, threads: 128 };
    const tiles: Tile[] = LEVELS.flatMap((level) => tilesOf(small, level));
    expect(tiles.every(({ threads, sharedBytes }) => threads <= 128 && sharedBytes <= 16384)).toBe(true);
    for (const level of ['float16', 'float32'] as const) expect(usualTiles(small, level)).toHaveLength(3);
    expect(tilesOf({ ...card, matrixShape: undefined }, 'matrices')).toEqual([]);
  });
});
