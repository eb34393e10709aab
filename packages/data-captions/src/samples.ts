/** Pixels of a decoded image. */

/** An 8-bit image, rows of RGB triples: data [height, width, 3]. */
export interface RgbImage {
  data: Uint8Array;
  width: number;
  height: number;
}

/** 8-bit samples: data [height, width, channels], grey or RGB, with or without alpha. */
export interface Samples extends RgbImage {
  channels: number;
}

/** Treatment of transparency: `drop` ignores it, `white` blends onto white. */
export const ALPHAS = ['white', 'drop'] as const;
export type Alpha = (typeof ALPHAS)[number];

/** Grey is repeated and alpha removed, as in PIL; RGBA in place. */
export function toRgb({ data, width, height, channels }: Samples, alpha: Alpha = 'white'): Samples {
  const n = width * height;
  if (channels === 3)
    return { data: new Uint8Array(data.buffer, data.byteOffset, 3 * n), width, height, channels };
  const colours = channels < 3 ? 1 : 3;
  const out = colours === 1 ? new Uint8Array(3 * n) : data;
  const opaque = alpha === 'drop' || channels === colours;
  for (let i = 0; i < n; i++) {
    const at = channels * i;
    const a = opaque ? 255 : data[at + colours];
    for (let c = 0; c < 3; c++) {
      const value = data[at + (colours === 3 ? c : 0)];
      out[3 * i + c] = opaque ? value : overWhite(value, a);
    }
  }
  return { data: new Uint8Array(out.buffer, out.byteOffset, 3 * n), width, height, channels: 3 };
}

/** PIL's alpha_composite of a value with alpha `a` (0 … 255) over opaque white, in its 7-bit fixed point. */
function overWhite(value: number, a: number): number {
  const x = (value * a + 255 * (255 - a)) * 128 + (0x80 << 7);
  return (((x >> 8) + x) >> 8) >> 7;
}
