/** Dropout as shaders compute it: element e is kept if 24 random bits are at least `least`. */
export interface Drop {
  rate: number;
  key0: number;
  key1: number;
}

/** The uniforms of a shader. The least kept value is exact, unlike a comparison of the rate in float32. */
export function dropUniforms(drop: Drop | undefined) {
  const { rate, key0, key1 } = drop ?? { rate: 0, key0: 0, key1: 0 };
  return { key0: key0 >>> 0, key1: key1 >>> 0, least: Math.ceil(rate * 2 ** 24), keep: 1 / (1 - rate) };
}
