/** `blip2 evaluate` of a model for retrieval: recall in both directions. */
import { allCaptions } from '@blip2/data-captions';
import type { Example } from '@blip2/data-captions';
import { collectionOf, nearestPairs, recall } from '@blip2/retrieval';
import type { Recall, RetrievalScores } from '@blip2/retrieval';
import { eachMatch, openRetrieval, similarities } from '../retrieval';
import type { OpenedRetrieval, RetrievalFlags } from '../retrieval';
import type { Ui } from '../ui';
import { columns } from '../ui';

/** @param rerank order so many of the nearest by matching, which reads image and text together (LAVIS's k_test) */
export async function evaluateRetrieval(
  flags: RetrievalFlags & { rerank?: number },
  { examples, split }: { examples: readonly Example[]; split?: string },
  ui: Ui,
): Promise<void> {
  const images = examples.map(({ image }) => image);
  const { texts, own } = collectionOf(examples.map(allCaptions));
  const opened = await openRetrieval(flags, ui);
  const found = await similarities(opened, images, texts, ui);
  const scores = recall(found, own);
  const { model, adapter, rerank } = flags;
  const what = { images, texts, own, found };
  const reranked = rerank === undefined ? undefined : await matched(opened, { ...what, k: rerank }, ui);
  ui.result(
    {
      ...{ model, adapter, split, images: images.length, texts: texts.length, ...scores },
      ...(reranked && { rerank, reranked }),
    },
    () => describe(scores, { images: images.length, texts: texts.length, rerank, reranked }),
  );
}

/** Recall when the k nearest are ordered by matching. */
async function matched(
  opened: OpenedRetrieval,
  {
    images,
    texts,
    own,
    found,
    k,
  }: { images: readonly string[]; texts: readonly string[]; own: number[][]; found: Float32Array; k: number },
  ui: Ui,
): Promise<RetrievalScores> {
  const { pairs, scores } = nearestPairs(found, images.length, k);
  const logits: number[][] = [];
  const wanted = (i: number) => pairs[i].map((t) => texts[t]);
  await eachMatch(opened, images, wanted, ui, (_, of) => void logits.push(of.map(([, yes]) => yes)));
  const { forImages, forTexts } = scores(logits);
  return recall(forImages, own, forTexts);
}

function describe(
  scores: RetrievalScores,
  {
    images,
    texts,
    rerank,
    reranked,
  }: { images: number; texts: number; rerank?: number; reranked?: RetrievalScores },
): string {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`.padStart(7);
  const row = (name: string, { r1, r5, r10 }: Recall) => [name, ...[r1, r5, r10].map(percent)];
  const both = (what: string, { image_to_text, text_to_image }: Omit<RetrievalScores, 'chance'>) => [
    row(`images → texts${what}`, image_to_text),
    row(`texts → images${what}`, text_to_image),
  ];
  return `${columns([
    ['', '    R@1', '    R@5', '   R@10'],
    ...both('', scores),
    ...(reranked ? both(`, the nearest ${rerank} matched`, reranked) : []),
    ...both(', a random order', scores.chance),
  ])}\n${images} images, ${texts} texts`;
}
