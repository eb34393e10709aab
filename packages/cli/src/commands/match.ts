/** `blip2 match`: how well texts fit pictures. */
import type { Command } from 'commander';
import { dispose, slice, softmax, tidy, tile } from '@blip2/nn';
import type { Tensor3D } from '@blip2/nn';
import { matchScores, textRows } from '@blip2/retrieval';
import type { TextRows } from '@blip2/retrieval';
import { command, PICTURES } from '../options';
import { findPictures } from '../pictures';
import { paint } from '../printable';
import { eachBatch, openRetrieval, retrievalOptions, similarities } from '../retrieval';
import type { OpenedRetrieval, RetrievalFlags } from '../retrieval';
import type { Ui } from '../ui';
import { columns } from '../ui';

interface MatchFlags extends RetrievalFlags {
  text: string[];
}

export function matchCommand(ui: Ui): Command {
  const match = command(
    'match',
    'Score how well texts fit images, with a model for retrieval.',
    'blip2 match photo.jpg --text "a dog" "a cat" --model Salesforce/blip2-itm-vit-g',
  ).argument('<image...>', PICTURES);
  return retrievalOptions(match)
    .requiredOption('--text <text...>', 'texts to compare with each image')
    .action((images: string[], flags: MatchFlags) => matchAll(images, flags, ui));
}

async function matchAll(args: string[], flags: MatchFlags, ui: Ui): Promise<void> {
  const images = await findPictures(args, ui.io);
  const opened = await openRetrieval(flags, ui);
  const { text: texts } = flags;
  const found = await similarities(opened, images, texts, ui);
  const probability = await probabilities(opened, images, texts, ui);
  const results = images.map((image, i) => ({
    image,
    texts: texts.map((text, t) => ({
      text,
      similarity: found[i * texts.length + t],
      match: probability[i][t],
    })),
  }));
  ui.result({ model: flags.model, results }, () => results.map(describe).join('\n\n'));
}

/** The texts of a picture, the most probable first. */
function describe({
  image,
  texts,
}: {
  image: string;
  texts: { text: string; similarity: number; match: number }[];
}) {
  const sorted = [...texts].sort((a, b) => b.match - a.match);
  const rows = sorted.map(({ text, similarity, match }) => [
    `${(100 * match).toFixed(1)} %`.padStart(7),
    similarity.toFixed(3).padStart(10),
    text,
  ]);
  return `${paint.dim(image)}\n${columns([['  match', 'similarity', 'text'], ...rows])}`;
}

/** Of each picture, the probability that each text matches it. */
async function probabilities(
  opened: OpenedRetrieval,
  images: readonly string[],
  texts: readonly string[],
  ui: Ui,
): Promise<number[][]> {
  const { model, tokenizer, batchSize } = opened;
  const all: number[][] = [];
  const batches: TextRows[] = [];
  for (let from = 0; from < texts.length; from += batchSize)
    batches.push(textRows(tokenizer, texts.slice(from, from + batchSize), model.config));
  await eachBatch(opened, images, ui, async (tokens) => {
    for (let b = 0; b < tokens.shape[0]; b++) {
      const own: number[] = [];
      for (const rows of batches) own.push(...(await matchOf(opened, tokens, b, rows)));
      all.push(own);
    }
  });
  return all;
}

/** The probabilities of some texts for the picture `b` of a batch. */
async function matchOf(
  { model }: OpenedRetrieval,
  tokens: Tensor3D,
  b: number,
  rows: TextRows,
): Promise<number[]> {
  const [, N, E] = tokens.shape;
  const found = tidy(() => {
    const own = tile(slice(tokens, [b, 0, 0], [1, N, E]), [rows.shape[0], 1, 1]);
    return softmax(matchScores(model, own, rows));
  });
  const values = await found.data();
  dispose(found);
  return Array.from({ length: rows.shape[0] }, (_, r) => values[2 * r + 1]);
}
