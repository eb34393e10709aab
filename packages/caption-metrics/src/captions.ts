/** All caption metrics in one call, on raw texts. */
import { bleu } from './bleu';
import { cider, ciderD } from './cider';
import { meteor } from './meteor';
import { mean } from './ngrams';
import { ptbTokenize } from './ptb';
import { rougeL } from './rouge';

/** All scores are 0 … 1, except CIDEr and CIDEr-D: 0 … 10. Papers print them × 100. */
export interface CaptionScores {
  bleu_1: number;
  bleu_2: number;
  bleu_3: number;
  bleu_4: number;
  rouge_l: number;
  /** NLTK's formulation with exact and stem matches, not METEOR 1.5. */
  meteor: number;
  cider: number;
  /** pycocoevalcap and most papers call this CIDEr. */
  cider_d: number;
  n: number;
}

/**
 * Scores captions against one or more references each, PTB-tokenised, lower-cased and without punctuation, as COCO's
 * evaluation does. CIDEr weighs words by how rare they are in these references, so it needs many images and cannot be
 * compared across data sets.
 * @throws Error when the lists differ in length or a caption has no reference
 */
export function scoreCaptionTexts(
  captions: readonly string[],
  references: readonly (readonly string[])[],
): CaptionScores {
  if (captions.length === 0 || captions.length !== references.length)
    throw new Error(
      `caption metrics: expected as many lists of references as captions, at least one, found ${captions.length} and ${references.length}`,
    );
  const bare = references.findIndex((texts) => texts.length === 0);
  if (bare >= 0) throw new Error(`caption metrics: caption ${bare} has no reference; give at least one`);
  const tokenize = (text: string) => ptbTokenize(text).join(' ');
  const said = captions.map(tokenize);
  const wanted = references.map((texts) => texts.map(tokenize));
  const [bleu_1, bleu_2, bleu_3, bleu_4] = bleu(said, wanted).corpus;
  return {
    ...{ bleu_1, bleu_2, bleu_3, bleu_4 },
    rouge_l: mean(said.map((text, i) => rougeL(text, wanted[i]))),
    meteor: mean(said.map((text, i) => meteor(text, wanted[i]))),
    cider: cider(said, wanted).corpus,
    cider_d: ciderD(said, wanted).corpus,
    n: captions.length,
  };
}
