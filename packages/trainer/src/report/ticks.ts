/** Round numbers for the axes of charts. */

/** Four to seven round numbers that cover the range. */
export function ticks(low: number, high: number): number[] {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough)!;
  const first = Math.floor(low / step + 1e-9);
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** 1, 2 and 5 times powers of ten that cover the range, or powers of ten alone if that is many. Both ends are above 0. */
export function logTicks(low: number, high: number): number[] {
  const decades = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const factors = decades[1] - decades[0] > 3 ? [1] : [1, 2, 5];
  const all: number[] = [];
  for (let power = decades[0]; power <= decades[1]; power++)
    for (const factor of factors) all.push(Number((factor * 10 ** power).toPrecision(12)));
  const first = Math.max(
    0,
    all.findLastIndex((tick) => tick <= low),
  );
  const last = all.findIndex((tick) => tick >= high);
  return all.slice(first, last < 0 ? undefined : last + 1);
}
