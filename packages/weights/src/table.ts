/** The strict check of a checkpoint's tensors against a model's table. */
import { WeightsError } from './errors';
import { list, show } from './header';
import type { TensorEntry } from './header';
import { encodingsOf, quantisedWeights } from './quantised';
import type { QuantisedWeight } from './quantised';
import type { WeightReader } from './reader';

/** Every tensor of a model: checkpoint name and shape. */
export type WeightTable = [name: string, shape: number[]][];

export interface TableOptions {
  /** Other names under which a tensor of the table may be stored, in order of preference (tied weights). */
  aliases?: Record<string, readonly string[]>;
  /** Stored tensors that are allowed although the table does not have them. */
  ignore?: readonly RegExp[];
}

/**
 * Checks that a checkpoint has every tensor of a model's table in its shape, and nothing else. Returns the stored tensor for
 * each name of the table.
 * @throws WeightsError once, with all missing, unexpected, misshapen and quantised tensors
 */
export function checkTable(
  reader: Pick<WeightReader, 'entries'> & Partial<Pick<WeightReader, 'path' | 'unresolved'>>,
  table: WeightTable,
  { aliases = {}, ignore = [] }: TableOptions = {},
): Map<string, TensorEntry> {
  const quantised = quantisedWeights(reader.entries);
  const served = new Map<string, TensorEntry>();
  const known = new Set(
    [...quantised.values()].flatMap(({ companions }) => companions.map(({ name }) => name)),
  );
  const missing: string[] = [];
  const misshapen: string[] = [];
  for (const [name, shape] of table) {
    const stored = [name, ...(aliases[name] ?? [])].flatMap((choice) => reader.entries.get(choice) ?? []);
    for (const entry of stored) {
      known.add(entry.name);
      // A quantised tensor has the shape of its bytes.
      if (!sameShape(entry.shape, shape) && !quantised.has(entry.name)) {
        misshapen.push(
          `${show(entry.name)}: expected ${shapeText(shape)}, found ${shapeText(entry.shape)} in ${entry.file}`,
        );
      }
    }
    const shard = reader.unresolved?.get(name);
    if (stored.length > 0) served.set(name, stored[0]!);
    else missing.push(`${show(name)} ${shapeText(shape)}${shard ? ` (the index lists it in ${shard})` : ''}`);
  }
  const unexpected = [...reader.entries.values()]
    .filter(
      ({ name }) =>
        !known.has(name) &&
        !ignore.some((pattern) => new RegExp(pattern, pattern.flags.replace(/[gy]/g, '')).test(name)),
    )
    .map(({ name, shape, file }) => `${show(name)} ${shapeText(shape)} in ${file}`);

  const kinds = { missing, unexpected, misshapen };
  const where = reader.path ?? [...reader.entries.values()][0]?.file ?? 'weights';
  refuse(
    where,
    kinds,
    [...quantised.values()],
    `${reader.entries.size} stored tensors do not fit the model's ${table.length}`,
  );
  return served;
}

/** @throws WeightsError when there are problems of any kind or quantised weights */
function refuse(
  where: string,
  kinds: Record<string, string[]>,
  quantised: QuantisedWeight[],
  summary: string,
): void {
  const problems = Object.entries(kinds).flatMap(([kind, items]) => items.map((item) => `${kind} ${item}`));
  const messages: string[] = [];
  if (quantised.length > 0) {
    const names = quantised.map(({ entry, encoding }) => `quantised ${show(entry.name)}: ${encoding}`);
    messages.push(
      `${where}: weights are stored as ${encodingsOf(quantised)}, which is not read yet: ` +
        `use the checkpoint in float32, float16 or bfloat16:\n${list(names, 12)}`,
    );
    problems.unshift(...names);
  }
  const parts = Object.entries(kinds)
    .filter(([, items]) => items.length > 0)
    .map(([kind, items]) => `${items.length} ${kind}:\n${list(items, 12)}`);
  if (parts.length > 0) messages.push(`${where}: ${summary}:\n${parts.join('\n')}`);
  if (messages.length > 0) throw new WeightsError(messages.join('\n'), problems);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}
