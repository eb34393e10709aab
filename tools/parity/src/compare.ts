/** Compares numbers with the expected ones. */
import type { Tensor } from '@blip2/nn';
import type { Case, Expected } from './case-file';

/** Result of a check: its worst quantity, by error divided by tolerance. */
export interface Finding {
  error: number;
  tolerance: number;
  /** The reference's own float32 error of that quantity. */
  noise: number;
  ok: boolean;
  /** The worst quantity, or the fault. */
  detail: string;
}

export const exact = (ok: boolean, detail: string): Finding => ({
  error: ok ? 0 : Infinity,
  tolerance: 0,
  noise: 0,
  ok,
  detail: ok ? '' : detail,
});

export type Values = ArrayLike<number> & { length: number };

/** The worst of many findings. */
export function worst(findings: Finding[]): Finding {
  const rank = ({ ok, error, tolerance }: Finding) =>
    (ok ? 0 : 1e6) + (tolerance > 0 ? error / tolerance : error > 0 ? 1e5 : 0);
  return findings.reduce((a, b) => (rank(b) > rank(a) || Number.isNaN(b.error) ? b : a));
}

/** Compares named results with their expected tensors; elements that `keep` rejects (padding) are ignored. */
export async function compareAll(
  of: Case,
  expect: Record<string, Expected>,
  results: Map<string, Tensor | Values>,
  keep: (name: string, i: number, shape: number[]) => boolean = () => true,
): Promise<Finding> {
  const findings: Finding[] = [];
  for (const [name, expected] of Object.entries(expect)) {
    const found = results.get(name);
    const { values, shape } = of.values(expected.tensor);
    const actual = found && ('data' in found ? await found.data() : found);
    if (!actual || actual.length !== values.length)
      findings.push(
        exact(
          false,
          `${name}: expected [${shape}], ${values.length} values, found ${actual?.length ?? 'none'}`,
        ),
      );
    else findings.push(compare(name, expected, actual, values, (i) => keep(name, i, shape)));
  }
  return worst(findings);
}

function compare(
  name: string,
  { tolerance, noise, scale = 0 }: Expected,
  actual: Values,
  expected: Float32Array,
  keep: (i: number) => boolean,
): Finding {
  let difference = 0;
  let size = scale;
  for (let i = 0; i < expected.length; i++) {
    if (!keep(i)) continue;
    size = Math.max(size, Math.abs(expected[i]));
    const off = Math.abs(actual[i] - expected[i]);
    if (!(off <= difference)) difference = off; // also for NaN
  }
  const error = difference === 0 ? 0 : difference / size;
  return { error, tolerance, noise, ok: error <= tolerance, detail: name };
}
