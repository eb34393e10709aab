/** The least by which a column is scaled, so that small columns are not blown up: a tenth of the mean; NaN if a number is not finite. */
export function floorOf(values: Float32Array): number {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  return Number.isFinite(mean) ? mean / 10 : NaN;
}
