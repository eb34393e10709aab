/** The strict check of a checkpoint's tensors against a model's table. */
import { WeightsError } from './errors';
import { list, show } from './header';
import type { TensorEntry } from './header';
import type { WeightReader } from './reader';
import { recogniseTensors } from './recognise';

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
 * @throws WeightsError once, with all missing, unexpected and misshapen tensors, and those of whole numbers without scales
 */
export function checkTable(
  reader: Pick<WeightReader, 'entries'> & Partial<Pick<WeightReader, 'path' | 'unresolved'>>,
  table: WeightTable,
  { aliases = {}, ignore = [] }: TableOptions = {},
): Map<string, TensorEntry> {
  const served = new Map<string, TensorEntry>();
  const known = new Set<string>();
  const missing: string[] = [];
  const misshapen: string[] = [];
  const whole: TensorEntry[] = []; // of whole numbers
  for (const [name, shape] of table) {
    const stored = [name, ...(aliases[name] ?? [])].flatMap((choice) => reader.entries.get(choice) ?? []);
    for (const entry of stored) {
      known.add(entry.name);
      if (!isFloat(entry) && !entry.quantised) whole.push(entry);
      if (!sameShape(entry.shape, shape)) {
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

  const problems = Object.entries({ missing, unexpected, misshapen });
  if (problems.every(([, items]) => items.length === 0) && whole.length === 0) return served;
  const where = reader.path ?? [...reader.entries.values()][0]?.file ?? 'weights';
  const names = table.map(([name]) => name);
  const sentence = withoutScales(whole) ?? recogniseTensors(reader.entries, names);
  const summary = `${reader.entries.size} stored tensors do not fit the model's ${table.length}`;
  return refuse(where, problems, sentence, summary);
}

const isFloat = ({ dtype }: TensorEntry) => /^B?F\d+$/.test(dtype);

/** Quantised weights whose scales are missing. */
function withoutScales(whole: TensorEntry[]): string | undefined {
  const [first] = whole;
  if (!first) return undefined;
  const kinds = [...new Set(whole.map(({ dtype }) => dtype))].join(' and ');
  return (
    `${whole.length} weights are whole numbers (${kinds}), such as ${show(first.name)}, and their scales are not in the ` +
    'file: they are quantised, which is not supported: use the checkpoint in float32, float16 or bfloat16'
  );
}

/** The sentence if the tensors are recognised as something else, else the lists. @throws WeightsError */
function refuse(
  where: string,
  kinds: [kind: string, items: string[]][],
  sentence: string | undefined,
  summary: string,
): never {
  const problems = kinds.flatMap(([kind, items]) => items.map((item) => `${kind} ${item}`));
  if (sentence !== undefined) throw new WeightsError(`${where}: ${sentence}`, [sentence, ...problems]);
  const parts = kinds
    .filter(([, items]) => items.length > 0)
    .map(([kind, items]) => `${items.length} ${kind}:\n${list(items, 12)}`);
  throw new WeightsError(`${where}: ${summary}:\n${parts.join('\n')}`, problems);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}
