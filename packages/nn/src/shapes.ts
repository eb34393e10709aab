/** Rows of a model's weight table: the names and shapes that its checkpoint must hold. */
export type WeightTable = [name: string, shape: number[]][];

/** Tensors of a Linear at `name`. */
export function linearShapes(name: string, inp: number, out: number, bias = true): WeightTable {
  return [[`${name}.weight`, [out, inp]], ...(bias ? ([[`${name}.bias`, [out]]] satisfies WeightTable) : [])];
}

/** Tensors of a LayerNorm of width D at `name`. */
export function layerNormShapes(name: string, D: number): WeightTable {
  return [
    [`${name}.weight`, [D]],
    [`${name}.bias`, [D]],
  ];
}
