/** Recall at k of a retrieval in both directions, as COCO and Flickr30k are scored (Karpathy and Fei-Fei, 2015). */

export interface Recall {
  r1: number;
  r5: number;
  r10: number;
}

/** Shares from 0 to 1. */
export interface RetrievalScores {
  /** A text of the image is among the k nearest texts. */
  image_to_text: Recall;
  /** The image of the text is among the k nearest images. */
  text_to_image: Recall;
  /** Recall at 1 of a random order, in the same directions. */
  chance: { image_to_text: number; text_to_image: number };
}

/**
 * @param scores similarity of each image with each text, row-major [I, R]
 * @param imageOf [R]: the image of each text; every image has at least one
 * @throws RangeError if the sizes do not fit
 */
export function recall(scores: Float32Array, imageOf: Int32Array): RetrievalScores {
  const R = imageOf.length;
  const I = scores.length / R;
  const own = Array.from({ length: I }, (): number[] => []);
  imageOf.forEach((image, text) => own[image]?.push(text));
  if (!Number.isInteger(I) || own.some((texts) => texts.length === 0))
    throw new RangeError(
      `recall: expected scores of images with ${R} texts, each with one, found ${scores.length} scores`,
    );
  const row = (i: number) => scores.subarray(i * R, (i + 1) * R);
  const ranksOfImages = own.map((texts, i) => Math.min(...texts.map((text) => rank(row(i), text))));
  const ranksOfTexts = Array.from(imageOf, (image, text) =>
    rank(
      Float32Array.from({ length: I }, (_, i) => scores[i * R + text]),
      image,
    ),
  );
  const chance = own.reduce((sum, texts) => sum + texts.length / R, 0) / I;
  return {
    image_to_text: shares(ranksOfImages),
    text_to_image: shares(ranksOfTexts),
    chance: { image_to_text: chance, text_to_image: 1 / I },
  };
}

/** How many are nearer; of equal scores, half, so that a model that gives all the same is not right by order. */
function rank(scores: Float32Array, at: number): number {
  let [nearer, equal] = [0, 0];
  for (const [i, score] of scores.entries()) {
    if (score > scores[at] || Number.isNaN(scores[at])) nearer++;
    else if (score === scores[at] && i !== at) equal++;
  }
  return nearer + Math.floor(equal / 2);
}

function shares(ranks: number[]): Recall {
  const within = (k: number) => ranks.filter((r) => r < k).length / ranks.length;
  return { r1: within(1), r5: within(5), r10: within(10) };
}
