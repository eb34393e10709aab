/** The cache of hidden states of a run: whether there is one, and where. */
import { resolve } from 'node:path';
import { frozenDepth } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import { allCaptions } from '@blip2/data-captions';
import type { ReadyDataset } from '@blip2/data-captions';
import { resolveModel } from '@blip2/weights/node';
import { decodingOf } from '../config';
import type { Opened } from '../stages';
import { mib, storeError } from './cache';
import type { FeatureCache } from './cache';
import type { HiddenCache } from './hidden';
import { hiddenCache } from './hidden';
import { hiddenKey } from './key';
import { lost, place, storeOf } from './run-cache';

const MIB = 2 ** 20;

/**
 * A cache of what the frozen lower layers of the text model compute, if there are any, and memory or disk has room beside the features.
 * @param held gets what ends the use of the folder
 * @throws Error when states that do not fit in memory cannot be written
 */
export async function makeHiddenCache(
  run: Opened,
  features: FeatureCache | undefined,
  say: (text: string) => void,
  held: (() => Promise<void>)[],
): Promise<HiddenCache | undefined> {
  const { config, model, trainables, data } = run;
  const depth = frozenDepth(model.config, trainables.keys());
  if (depth === 0 || !features) return undefined;
  const { Q, D } = sizes(model.config);
  const amount = amountOf([data.train, data.lossRows], features.idOf);
  const bytes = hiddenBytes(model.config, amount);
  const inMemory = bytes + features.bytes <= config.cache_memory_mb * MIB;
  const onDisk = bytes + features.bytes <= config.cache_limit_mb * MIB;
  const what = `hidden states before layer ${depth} of ${count(amount.pictures)} images and ${count(amount.texts)} texts, ${mib(bytes)}`;
  if (!inMemory && !onDisk)
    return void say(
      `feature cache: no ${what}, which are above cache_limit_mb (${config.cache_limit_mb}) with the features; these layers run at each step`,
    );
  const dir = resolve(resolveModel(config.model));
  const key = () => hiddenKey(dir, model, depth, decodingOf(config), run.hashes?.hidden);
  const store = onDisk ? await storeOf(config, { key, shape: [Q, D], inMemory }, say, held) : undefined;
  say(`feature cache: ${what} ${place(store, inMemory)}; made when they are first needed`);
  return hiddenCache(model, {
    depth,
    idOf: features.idOf,
    store,
    inMemory,
    onStoreLost: ({ message }) => say(lost(store!.dir, message)),
    fatal: ({ message }) => storeError(store!, message),
  });
}

/** Numbers of pictures, of texts and of their tokens. */
export interface HiddenAmount {
  pictures: number;
  texts: number;
  tokens: number;
}

/** Bytes of float32 states: of Q positions per picture, and of every token. */
export function hiddenBytes(config: Blip2Config, { pictures, tokens }: HiddenAmount): number {
  const { Q, D } = sizes(config);
  return (pictures * Q + tokens) * D * 4;
}

const sizes = ({ num_query_tokens: Q, text_config: { hidden_size: D } }: Blip2Config) => ({ Q, D });

/** What rows need. Captions of a list after the first count as long as it. @param idOf content id of a picture's file */
export function amountOf(sets: (ReadyDataset | undefined)[], idOf: (file: string) => string): HiddenAmount {
  const pictures = new Set<string>();
  let [texts, tokens] = [0, 0];
  for (const set of sets)
    set?.examples.forEach((example, i) => {
      const { start, target } = set.rows(i);
      const several = Math.max(1, allCaptions(example).length);
      pictures.add(idOf(example.image));
      texts += several;
      tokens += several * (start.length + target.length);
    });
  return { pictures: pictures.size, texts, tokens };
}

const count = (n: number) => n.toLocaleString('en');
