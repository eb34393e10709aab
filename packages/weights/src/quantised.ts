/** Quantised checkpoints: groups each weight with the tensors of its scales and tables. */
import type { TensorEntry } from './header';

/** A quantised weight with the tensors that belong to it. */
export interface QuantisedWeight {
  entry: TensorEntry;
  /** Such as `bitsandbytes nf4`. */
  encoding: string;
  companions: TensorEntry[];
}

/** bitsandbytes, functional.py, `QuantState.as_dict`: `X` with `X.absmax`, `X.quant_state.bitsandbytes__nf4`, … */
const FOUR_BITS =
  /^(.+)\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__(\w+))$/;
/** bitsandbytes, nn/modules.py, `Linear8bitLt`: `P.weight` with `P.SCB` and `P.weight_format`. */
const INT8 = /^(.+)\.(?:SCB|weight_format)$/;

/** The quantised weights among stored tensors, by name. */
export function quantisedWeights(entries: ReadonlyMap<string, TensorEntry>): Map<string, QuantisedWeight> {
  const found = new Map<string, QuantisedWeight>();
  for (const companion of entries.values()) {
    const [, base = '', kind] = FOUR_BITS.exec(companion.name) ?? INT8.exec(companion.name) ?? [];
    const entry = entries.get(base) ?? entries.get(`${base}.weight`);
    if (!entry) continue;
    const encoding = `bitsandbytes ${INT8.test(companion.name) ? 'int8' : (kind ?? '4 bit')}`;
    const weight = found.get(entry.name) ?? { entry, encoding, companions: [] };
    if (kind) weight.encoding = encoding;
    weight.companions.push(companion);
    found.set(entry.name, weight);
  }
  return found;
}

/** `bitsandbytes nf4 (12 tensors)`, once per encoding. */
export function encodingsOf(weights: Iterable<QuantisedWeight>): string {
  const counts = new Map<string, number>();
  for (const { encoding } of weights) counts.set(encoding, (counts.get(encoding) ?? 0) + 1);
  return [...counts]
    .map(([encoding, n]) => `${encoding} (${n} ${n === 1 ? 'tensor' : 'tensors'})`)
    .join(', ');
}
