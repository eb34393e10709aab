/** The names and shapes of the tensors in the checkpoint of a model. */
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
