/** What the settings of a run are chosen from: its data, its model and the disk. */
import { loadConfig } from '@blip2/blip2/node';
import type { Example } from '@blip2/data-captions';
import { layoutOf, openSplits } from '@blip2/data-captions';
import { isRetrievalFolder, loadRetrievalConfig } from '@blip2/retrieval/node';
import { resolveModel } from '@blip2/weights/node';
import { defaultCacheDir } from '../features';
import { freeBytes } from '../features/store';

export interface Facts {
  /** different pictures of the training split, or of all data if it has no splits */
  pictures: number;
  /** its rows */
  rows: number;
  /** the splits that the data has */
  splits: string[];
  /** rows of the largest of the splits for validation and test */
  heldOut: number;
  captions: boolean;
  questions: boolean;
  /** what the model learns */
  objective: 'captioning' | 'retrieval';
  /** hidden size of the language model, or of the Q-Former of a model for retrieval; undefined if the model cannot be read */
  width?: number;
  /** free bytes where features are cached */
  free: number;
}

/** Reads the texts of the data, the model's configuration and the free disk. @throws DataError if the data cannot be read */
export async function readFacts(raw: Record<string, unknown>): Promise<Facts> {
  const { data, model, cache_dir } = raw;
  const { splits } = await openSplits(String(data), layoutOf(raw));
  const named = new Map(splits.map(({ split, examples }) => [split, examples]));
  const train = named.get('train') ?? named.get(undefined) ?? [];
  const heldOut = ['validation', 'test'].map((split) => named.get(split)?.length ?? 0);
  return {
    ...countsOf(train),
    splits: splits.flatMap(({ split }) => split ?? []),
    heldOut: Math.max(...heldOut),
    ...(await modelFacts(model)),
    free: await freeBytes(typeof cache_dir === 'string' ? cache_dir : defaultCacheDir()),
  };
}

/** Whoever loads the model reports what is wrong with it. */
async function modelFacts(model: unknown): Promise<Pick<Facts, 'objective' | 'width'>> {
  const unknown = { objective: 'captioning' } as const;
  if (typeof model !== 'string') return unknown;
  try {
    const dir = resolveModel(model);
    if (!isRetrievalFolder(dir))
      return { ...unknown, width: (await loadConfig(dir)).text_config.hidden_size };
    const { qformer_config } = await loadRetrievalConfig(dir);
    return { objective: 'retrieval', width: qformer_config.hidden_size };
  } catch {
    return unknown;
  }
}

function countsOf(examples: Example[]): Pick<Facts, 'pictures' | 'rows' | 'captions' | 'questions'> {
  return {
    pictures: new Set(examples.map(({ image }) => image)).size,
    rows: examples.length,
    captions: examples.some(({ caption }) => caption !== undefined),
    questions: examples.some(({ question }) => question !== undefined),
  };
}
