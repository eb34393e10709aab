/**
 * At most `count` items, evenly spaced from the first to the last, so that all kinds of a sorted list are seen. The spacing is
 * rarely a whole number, so a list of question 1, 2, 3, 1, 2, 3, … gives all three.
 */
export function spread<T>(items: T[], count: number): T[] {
  if (items.length <= count) return items;
  const step = count > 1 ? (items.length - 1) / (count - 1) : 0;
  return Array.from({ length: count }, (_, i) => items[Math.floor(i * step)]);
}
