/** The exports that run in a browser; bundlers find them by the condition `browser` of package.json. */
export { AUGMENTATIONS } from './augment';
export { batches, countBatches, epochOrder } from './batches';
export {
  collate,
  encodePair,
  IGNORED,
  promptBatch,
  promptFor,
  questionPrompt,
  textPair,
  VQA_PROMPT,
} from './collate';
export { allAnswers, allCaptions, commonestOf } from './example';
export { countRows, DataError, problemLines } from './errors';
export { imagesError } from './image-errors';
export { LAYOUT, layoutOf } from './layout';
export { sharesPictures } from './pictures';
export { parseImageConfig, pixelValues } from './pixels';
export { makeProcessor } from './processor';
export { frameIds, paddedRows, qformerText } from './qformer-text';
export { checkTask, readyDataset } from './ready';
export { ALPHAS, toRgb } from './samples';
export { answerOf, captionOf, UNANSWERABLE } from './target';
export { withinTime } from './time-limit';
export { makeTokenizer } from './tokenizer';
