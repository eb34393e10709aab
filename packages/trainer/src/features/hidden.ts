/**
 * A cache of hidden states: the deepest work that is the same at every step. They are made when a batch first needs them, because which
 * caption of a picture an epoch takes is random. Exact, because frozen layers run as in evaluation with and without it.
 */
import type { Blip2, ImageInput } from '@blip2/blip2';
import type { Batch } from '@blip2/data-captions';
import type { HiddenEntry } from './hidden-rows';
import { entriesOf, hiddenStates } from './hidden-rows';
import { joined } from './stage';
import type { FeatureStore } from './store';

export interface HiddenCache {
  /** the layer of the text model whose input is kept */
  depth: number;
  /** how many pictures and texts of batches were computed so far, and how many were in memory or on disk */
  counts(): { computed: number; reused: number };
  /** Hidden states of the packed positions of a batch [N, Dt]. @param image gives its pictures, if something is missing */
  rows(batch: Batch, image: () => Promise<ImageInput>): Promise<Float32Array>;
}

export interface HiddenOptions {
  depth: number;
  /** content id of a picture's file */
  idOf(file: string): string;
  /** keeps them between runs; without it they are in memory only */
  store?: FeatureStore;
  inMemory: boolean;
  /** called when the store cannot be written: they are then kept in memory only */
  onStoreLost(error: Error): void;
  /** the error of a store that cannot be written, when memory has no room */
  fatal(error: Error): Error;
}

export function hiddenCache(model: Blip2, o: HiddenOptions): HiddenCache {
  const { depth } = o;
  const D = model.config.text_config.hidden_size;
  const memory = o.inMemory ? new Map<string, Float32Array>() : undefined;
  let { store } = o;
  const find = async ({ id, rows }: HiddenEntry) => {
    const known = memory?.get(id);
    if (known) return known;
    const read = await store?.read(id, rows);
    if (read) memory?.set(id, read);
    return read;
  };
  const keep = async ({ id, rows }: HiddenEntry, values: Float32Array) => {
    memory?.set(id, values);
    try {
      await store?.write(id, values, rows);
    } catch (error) {
      if (!memory) throw o.fatal(error as Error);
      store = undefined;
      o.onStoreLost(error as Error);
    }
  };
  let [computed, reused] = [0, 0];
  const rowsOf: HiddenCache['rows'] = async (batch, image) => {
    const entries = entriesOf(model, batch, batch.images.map(o.idOf));
    const kept = await Promise.all(entries.map(find));
    const missing = kept.filter((values) => values === undefined).length;
    computed += missing;
    reused += entries.length - missing;
    if (missing === 0) return joined(kept as Float32Array[]);
    const all = await hiddenStates(model, await image(), batch, depth);
    for (const [i, entry] of entries.entries())
      if (!kept[i]) await keep(entry, all.slice(entry.from * D, (entry.from + entry.rows) * D));
    return all;
  };
  let before: Promise<unknown> = Promise.resolve();
  return {
    depth,
    counts: () => ({ computed, reused }),
    rows(batch, image) {
      const turn = before.then(() => rowsOf(batch, image)); // in turn, so that nothing is computed twice
      before = turn.catch(() => undefined);
      return turn;
    },
  };
}
