/** Typed readers of one record of a checkpoint's config.json; null and absent mean the default. */
export type ConfigFields = ReturnType<typeof configFields>;

const MOST_SIZE = 2 ** 31 - 1;
/** Ten times the deepest model there is: a hostile file must not fill the memory with names of tensors. */
const MOST_LAYERS = 1000;
const isCount = (v: number, most: number) => Number.isInteger(v) && v > 0 && v <= most;

/**
 * Readers for the record `json` at `where` in the file.
 * @throws Error if it is not a record; the readers throw `where.field: expected …, found …` for a wrong field
 */
export function configFields(json: unknown, where: string) {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new Error(`${where}: expected an object, found ${JSON.stringify(json)}`);
  const record = json as Record<string, unknown>;
  /** Any field: `ok` returns the value, or undefined if it is not as `expected`. */
  const read = <T>(name: string, ok: (value: unknown) => T | undefined, expected: string): T => {
    const value = ok(record[name] ?? undefined);
    if (value !== undefined) return value;
    const found = (JSON.stringify(record[name]) ?? 'undefined').slice(0, 80);
    throw new Error(`${where}.${name}: expected ${expected}, found ${found}`);
  };
  const number = (name: string, fallback: number, ok: (value: number) => boolean, expected: string): number =>
    read(name, (v = fallback) => (typeof v === 'number' && ok(v) ? v : undefined), expected);
  return {
    read,
    number,
    /** A positive integer. */
    count: (name: string, fallback: number) =>
      number(name, fallback, (v) => isCount(v, MOST_SIZE), 'a positive integer'),
    layers: (name: string, fallback: number) =>
      number(name, fallback, (v) => isCount(v, MOST_LAYERS), `a positive integer, at most ${MOST_LAYERS}`),
    /** A probability below 1. */
    rate: (name: string, fallback: number) =>
      number(name, fallback, (v) => v >= 0 && v < 1, 'a rate in [0, 1)'),
    flag: (name: string, fallback: boolean) =>
      read(name, (v = fallback) => (typeof v === 'boolean' ? v : undefined), 'true or false'),
    /** One of the allowed words; the first is the default. */
    text: <T extends string>(name: string, allowed: readonly [T, ...T[]]): T => {
      const expected = allowed.map((word) => `"${word}"`).join(' or ');
      return read(name, (v = allowed[0]) => allowed.find((word) => word === v), expected);
    },
    /** A token id, or a list of one, as transformers sometimes writes it. */
    tokenId: (name: string, fallback: number) => read(name, (v = fallback) => oneId(v), 'one token id'),
    /** A field of which one value is supported. */
    only: (name: string, value: string | number | boolean): void => {
      const expected = `${JSON.stringify(value)} (nothing else is supported)`;
      read(name, (v = value) => (v === value ? true : undefined), expected);
    },
  };
}

function oneId(value: unknown): number | undefined {
  const one: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value;
  return Number.isInteger(one) && (one as number) >= 0 ? (one as number) : undefined;
}

/** @throws Error if the width is not divisible by the number of heads */
export function checkHeads(cfg: { hidden_size: number; num_attention_heads: number }, where: string): void {
  const { hidden_size, num_attention_heads } = cfg;
  if (hidden_size % num_attention_heads === 0) return;
  throw new Error(
    `${where}.hidden_size: expected a multiple of num_attention_heads (${num_attention_heads}), found ${hidden_size}`,
  );
}
