/** How fast products are on an adapter, for benchmarks. */
import { backend } from '@tensorflow/tfjs-core';
import type { GpuBackend } from './backend';
import { LEVELS, tilesOf } from './tiles';
import type { Level } from './tiles';
import { WIDTH, withTrial } from './try-tile';

export interface TileRate {
  level: Level;
  tile: string;
  gflops: number;
  /** Whether products of so many rows use it. */
  used: boolean;
}

/**
 * Every tile of the active backend webgpu, with products [rows, 2560]·[2560, 2560] of a weight in bfloat16: float32 arithmetic in the precision
 * float32, the other levels in bfloat16.
 */
export async function tileRates(rows = 1024): Promise<TileRate[]> {
  const gpu = backend() as GpuBackend;
  const used = new Set(Object.values(gpu.tiles).flatMap((tiles) => tiles[2]!.name));
  return withTrial(gpu, async ({ seconds }) => {
    const rates: TileRate[] = [];
    for (const level of LEVELS)
      for (const tile of tilesOf(gpu.adapter, level)) {
        const taken = await seconds(tile, rows, level !== 'float32');
        const gflops = (2 * rows * WIDTH ** 2) / taken / 1e9;
        rates.push({ level, tile: tile.name, gflops, used: used.has(tile.name) });
      }
    return rates;
  });
}
