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
  /** Of a random order, in the same directions. */
  chance: { image_to_text: Recall; text_to_image: Recall };
}

/** Which texts of a collection belong to each of its images. A text may belong to several. */
export type TextsOfImages = readonly (readonly number[])[];

/** How many others are nearer than the nearest right one: 0 is found first. Of equal scores, half count. */
export interface Ranks {
  ofImages: number[]; // [I]
  ofTexts: number[]; // [R]
}

/**
 * The collection of these images: their texts, each once, and which belong to each image.
 * @param captions of each image
 */
export function collectionOf(captions: readonly (readonly string[])[]): { texts: string[]; own: number[][] } {
  const places = new Map<string, number>();
  const placeOf = (text: string) => {
    if (!places.has(text)) places.set(text, places.size);
    return places.get(text)!;
  };
  const own = captions.map((texts) => [...new Set(texts.map(placeOf))]);
  return { texts: [...places.keys()], own };
}

/**
 * @param scores similarity of each image with each text, row-major [I, R]
 * @param own every image has at least one text, and every text at least one image
 * @param forTexts the scores by which images are ordered for a text, if they are others
 * @throws RangeError if the sizes do not fit
 */
export function ranksOf(scores: Float32Array, own: TextsOfImages, forTexts = scores): Ranks {
  const I = own.length;
  const images = imagesOfTexts(own);
  const R = images.length;
  if (scores.length !== I * R || [...own, ...images].some((right) => right.length === 0))
    throw new RangeError(
      `recall: expected scores of ${I} images with ${R} texts, each with one of the other, found ${scores.length} scores`,
    );
  const ofTexts = images.map((right, text) => {
    const column = Float32Array.from({ length: I }, (_, i) => forTexts[i * R + text]);
    return Math.min(...right.map((image) => rank(column, image)));
  });
  const ofImages = own.map((right, i) => {
    const row = scores.subarray(i * R, (i + 1) * R);
    return Math.min(...right.map((text) => rank(row, text)));
  });
  return { ofImages, ofTexts };
}

/** Arguments and errors as `ranksOf`. */
export function recall(scores: Float32Array, own: TextsOfImages, forTexts = scores): RetrievalScores {
  const { ofImages, ofTexts } = ranksOf(scores, own, forTexts);
  return {
    image_to_text: shares(ofImages),
    text_to_image: shares(ofTexts),
    chance: {
      image_to_text: chanceOf(own, ofTexts.length),
      text_to_image: chanceOf(imagesOfTexts(own), ofImages.length),
    },
  };
}

function imagesOfTexts(own: TextsOfImages): number[][] {
  const texts = own.reduce((most, right) => right.reduce((a, b) => Math.max(a, b + 1), most), 0);
  const images = Array.from({ length: texts }, (): number[] => []);
  own.forEach((right, image) => right.forEach((text) => images[text].push(image)));
  return images;
}

/** How many are nearer; of equal scores, half, so that a model that gives all the same is not right by order. */
function rank(scores: Float32Array, at: number): number {
  let [nearer, equal] = [0, 0];
  for (const [i, score] of scores.entries()) {
    if (score > scores[at] || Number.isNaN(scores[at])) nearer++;
    else if (score === scores[at] && i !== at) equal++;
  }
  return nearer + Math.ceil(equal / 2);
}

function shares(ranks: readonly number[]): Recall {
  const within = (k: number) => ranks.filter((r) => r < k).length / ranks.length;
  return { r1: within(1), r5: within(5), r10: within(10) };
}

/** The mean chance that one of the right ones is among k of `n`. */
function chanceOf(right: TextsOfImages, n: number): Recall {
  const within = (k: number) =>
    right.reduce((sum, { length }) => sum + 1 - noneOf(length, n, k), 0) / right.length;
  return { r1: within(1), r5: within(5), r10: within(10) };
}

/** The chance that none of `m` right ones is among k of `n` drawn without replacement. */
function noneOf(m: number, n: number, k: number): number {
  if (k > n - m) return 0;
  return Array.from({ length: k }, (_, i) => (n - m - i) / (n - i)).reduce((a, b) => a * b, 1);
}
