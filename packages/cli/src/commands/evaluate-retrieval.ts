/** `blip2 evaluate` of a model for retrieval: recall in both directions. */
import { allCaptions, openDataset } from '@blip2/data-captions';
import type { DatasetOptions } from '@blip2/data-captions';
import { collectionOf, recall } from '@blip2/retrieval';
import type { Recall, RetrievalScores } from '@blip2/retrieval';
import { openRetrieval, similarities } from '../retrieval';
import type { RetrievalFlags } from '../retrieval';
import type { Ui } from '../ui';
import { columns } from '../ui';

/** @param data the options of the split that is scored */
export async function evaluateRetrieval(
  flags: RetrievalFlags & { data: string },
  data: DatasetOptions,
  ui: Ui,
): Promise<void> {
  const { examples } = await openDataset(flags.data, { ...data, references_for: 'caption' });
  const images = examples.map(({ image }) => image);
  const { texts, own } = collectionOf(examples.map(allCaptions));
  const opened = await openRetrieval(flags, ui);
  const scores = recall(await similarities(opened, images, texts, ui), own);
  const { model } = flags;
  ui.result({ model, split: data.split, images: images.length, texts: texts.length, ...scores }, () =>
    describe(scores, images.length, texts.length),
  );
}

function describe(
  { image_to_text, text_to_image, chance }: RetrievalScores,
  images: number,
  texts: number,
): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`.padStart(7);
  const row = (name: string, { r1, r5, r10 }: Recall, random: Recall) => [
    name,
    ...[r1, r5, r10, random.r1].map(percent),
  ];
  return `${columns([
    ['', '    R@1', '    R@5', '   R@10', ' R@1 at random'],
    row('images → texts', image_to_text, chance.image_to_text),
    row('texts → images', text_to_image, chance.text_to_image),
  ])}\n${images} images, ${texts} texts`;
}
