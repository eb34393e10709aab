/**
 * Ordering the nearest by matching, which reads image and text together and is too slow for all pairs. Reference: LAVIS,
 * `compute_sim_matrix` of models/blip2_models/blip2.py (k_test). I images, R texts.
 */
export interface Nearest {
  /** Of each image, the texts that it is matched with: its k nearest, and those of whose k nearest images it is one. */
  pairs: number[][];
  /**
   * Scores that order texts for an image, and images for a text: similarity plus the logit of a match, −∞ for what is not among the k
   * nearest. @param logits of a match, in the order of `pairs`
   */
  scores(logits: readonly ArrayLike<number>[]): { forImages: Float32Array; forTexts: Float32Array };
}

/** @param similarities of each image with each text, row-major [I, R] */
export function nearestPairs(similarities: Float32Array, I: number, k: number): Nearest {
  const R = similarities.length / I;
  const nearest = (n: number, score: (at: number) => number) => {
    const order = Array.from({ length: n }, (_, at) => at).sort((a, b) => score(b) - score(a));
    return new Set(order.slice(0, k));
  };
  const textsOf = Array.from({ length: I }, (_, i) => nearest(R, (t) => similarities[i * R + t]));
  const imagesOf = Array.from({ length: R }, (_, t) => nearest(I, (i) => similarities[i * R + t]));
  const pairs = textsOf.map((own, i) =>
    imagesOf.flatMap((images, t) => (own.has(t) || images.has(i) ? [t] : [])),
  );
  const scores: Nearest['scores'] = (logits) => {
    const [forImages, forTexts] = [0, 1].map(() => new Float32Array(I * R).fill(-Infinity));
    pairs.forEach((texts, i) =>
      texts.forEach((t, j) => {
        const score = similarities[i * R + t] + logits[i][j];
        if (textsOf[i].has(t)) forImages[i * R + t] = score;
        if (imagesOf[t].has(i)) forTexts[i * R + t] = score;
      }),
    );
    return { forImages, forTexts };
  };
  return { pairs, scores };
}
