/** `--draft`: what the captions of a data set suggest as the next tokens. */
import { draftsOf } from '@blip2/blip2';
import type { GenerateOptions } from '@blip2/blip2';
import { listSplits, readyDataset } from '@blip2/data-captions';
import { examplesOpener, spread } from '@blip2/trainer';
import { openTexts } from './model';
import type { Opened } from './model';
import type { Ui } from './ui';

/** Texts that are counted; more would take gigabytes and hardly change what follows what. */
const MOST = 50_000;

/** Of the split for training, or of all rows of a data set without splits; undefined without `draft`. @throws DataError */
export async function openDrafts(
  { draft: path, prompt }: { draft?: string; prompt?: string },
  { model, processor, folders }: Opened,
  ui: Ui,
): Promise<GenerateOptions['draft']> {
  if (path === undefined) return undefined;
  const texts = {
    ...(await openTexts(folders.model, { task: 'caption', prompt })),
    task: 'caption',
  } as const;
  const open = examplesOpener({ onMessage: (text) => ui.log(text) });
  const splits = await listSplits(path);
  const split = splits.includes('train') ? 'train' : undefined;
  const ready = readyDataset(await open(path, { texts, skip_bad: true, split }), processor, texts);
  const end = model.config.text_config.eos_token_id;
  const places = spread([...ready.examples.keys()], MOST);
  const targets = places.map((i) => [...ready.rows(i).target].filter((id) => id !== end));
  return draftsOf(targets, end);
}
