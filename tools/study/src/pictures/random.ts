/** The same numbers for the same seed: Park and Miller's generator. */
export interface Random {
  /** a whole number from `low` to `high`, both included */
  whole(low: number, high: number): number;
  /** from `low` to below `high` */
  between(low: number, high: number): number;
  pick<T>(items: readonly T[]): T;
  /** a new order of the items */
  shuffled<T>(items: readonly T[]): T[];
}

export function randomOf(seed: number): Random {
  let state = (seed % 2147483646) + 1;
  const next = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const whole = (low: number, high: number) => low + Math.floor(next() * (high - low + 1));
  return {
    whole,
    between: (low, high) => low + next() * (high - low),
    pick: (items) => items[whole(0, items.length - 1)],
    shuffled: (items) =>
      items
        .map((item) => ({ item, key: next() }))
        .sort((a, b) => a.key - b.key)
        .map(({ item }) => item),
  };
}
