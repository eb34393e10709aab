/** `blip2 match`: how well texts fit pictures. */
import type { Command } from 'commander';
import { command, PICTURES } from '../options';
import { findPictures } from '../pictures';
import { paint } from '../printable';
import { eachMatch, openRetrieval, retrievalOptions, similarities } from '../retrieval';
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
  const all: number[][] = [];
  const probability = ([no, yes]: Float32Array) => 1 / (1 + Math.exp(no - yes));
  await eachMatch(
    opened,
    images,
    () => texts,
    ui,
    (_, logits) => all.push(logits.map(probability)),
  );
  return all;
}
