/** The choice of learning rates: by the validation score at one data size and one seed. */

export interface Tried {
  rate: number;
  score: number;
}

const FIRST = [3e-4, 1e-3, 3e-3];
const [LOWEST, HIGHEST] = [1e-4, 1e-2];

/** The rates to try next: three at first, then one more beyond the best, while the best is the first or last one. */
export function ratesLeft(tried: readonly Tried[]): number[] {
  const missing = FIRST.filter((rate) => !tried.some((one) => one.rate === rate));
  if (missing.length > 0) return missing;
  const rates = tried.map(({ rate }) => rate);
  const { rate } = best(tried);
  const next =
    rate === Math.min(...rates) ? step(rate, -1) : rate === Math.max(...rates) ? step(rate, 1) : rate;
  return next === rate || next < LOWEST || next > HIGHEST ? [] : [next];
}

/** The chosen rate; undefined while rates are left to try. */
export function chosenRate(tried: readonly Tried[]): number | undefined {
  return ratesLeft(tried).length > 0 ? undefined : best(tried).rate;
}

const best = (tried: readonly Tried[]) => tried.reduce((a, b) => (b.score > a.score ? b : a));

/** The next rate of 1e-4, 3e-4, 1e-3, 3e-3, 1e-2. */
function step(rate: number, by: -1 | 1): number {
  const ladder = [LOWEST, ...FIRST, HIGHEST];
  return ladder[ladder.indexOf(rate) + by] ?? rate;
}

/** The rate between others for data that is not tuned: their geometric mean, with two digits. */
export function between(rates: readonly number[]): number {
  const mean = Math.exp(rates.reduce((sum, rate) => sum + Math.log(rate), 0) / rates.length);
  return Number(mean.toPrecision(2));
}
