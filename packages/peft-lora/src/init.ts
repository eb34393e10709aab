/** Initial values of an adapter's matrices (peft 0.21 `LoraLayer.reset_lora_parameters`, `orthogonal_init`). */
import { fold, normal, rngKey, uniform } from '@blip2/nn';
import type { LoraConfig } from './config';
import type { LoraTarget } from './match';

/** Values in row-major order: A [r, in], B [out, r], bias [out] with `lora_bias`. */
export interface FreshMatrices {
  A: Float32Array;
  B: Float32Array;
  bias?: Float32Array;
}

/** Initial matrices of an adapter, which depend only on the seed and the module's name. */
export function freshMatrices(target: LoraTarget, config: LoraConfig, seed: number): FreshMatrices {
  const { module, in: width, out, r } = target;
  const key = (name: string) => fold(rngKey(seed), `${module}.${name}`);
  // PyTorch's kaiming_uniform(a = √5), nn.Linear's default for weight and bias
  const within = (name: string, count: number, fanIn: number) =>
    uniform(key(name), count).map((u) => (2 * u - 1) / Math.sqrt(fanIn));
  if (config.init_lora_weights === 'orthogonal') return orthogonal(target, key);
  const A =
    config.init_lora_weights === 'gaussian'
      ? normal(key('lora_A.weight'), r * width).map((z) => z / r)
      : within('lora_A.weight', r * width, width);
  const isRandom = config.init_lora_weights === false;
  return {
    A,
    B: isRandom ? within('lora_B.weight', out * r, r) : new Float32Array(out * r),
    ...(config.lora_bias && { bias: isRandom ? within('lora_B.bias', out, r) : new Float32Array(out) }),
  };
}

/**
 * Random A and B with B·A = 0: A = (X·Q_even)ᵀ / 10 and B = Y·Q_odd / 10 for normal X [in, r/2] and Y [out, r/2], and the
 * even and odd rows of an orthogonal Q [r, r].
 */
function orthogonal(
  { in: width, out, r }: LoraTarget,
  key: (name: string) => ReturnType<typeof fold>,
): FreshMatrices {
  const rows = orthonormalRows(normal(key('orthogonal'), r * r), r);
  const half = r / 2;
  const X = normal(key('lora_A.weight'), width * half);
  const Y = normal(key('lora_B.weight'), out * half);
  const mixed = (values: Float32Array, i: number, j: number, first: number) => {
    let sum = 0;
    for (let k = 0; k < half; k++) sum += values[i * half + k]! * rows[2 * k + first]![j]!;
    return sum / 10;
  };
  return {
    A: Float32Array.from({ length: r * width }, (_, e) => mixed(X, e % width, Math.floor(e / width), 0)),
    B: Float32Array.from({ length: out * r }, (_, e) => mixed(Y, Math.floor(e / r), e % r, 1)),
  };
}

/** Gram–Schmidt, twice per row, in double precision. */
function orthonormalRows(values: Float32Array, r: number): Float64Array[] {
  const rows: Float64Array[] = [];
  for (let i = 0; i < r; i++) {
    const row = Float64Array.from(values.subarray(i * r, (i + 1) * r));
    for (const other of [...rows, ...rows]) {
      const along = other.reduce((sum, x, j) => sum + x * row[j]!, 0);
      other.forEach((x, j) => (row[j]! -= along * x));
    }
    const length = Math.hypot(...row);
    rows.push(row.map((x) => x / length));
  }
  return rows;
}
