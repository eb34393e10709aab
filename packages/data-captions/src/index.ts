export { AUGMENTATIONS } from './augment';
export type { Augmentation, Box, View } from './augment';
export { batches, countBatches, epochOrder } from './batches';
export { sharesPictures } from './pictures';
export type { Batch, BatchOptions, EpochOptions } from './batches';
export { checkTask, readyDataset } from './ready';
export type { ReadyDataset } from './ready';
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
export type { CollateOptions, Task, TextOptions, TextPair, TokenRows, TrainingRow } from './collate';
export { LAYOUT, layoutOf } from './layout';
export type { Layout } from './layout';
export { checkData } from './check/check';
export type { CheckOptions, DataReport, Finding, SplitReport } from './check/check';
export { contactSheet } from './check/sheet';
export { listSplits, openDataset, openSplits } from './dataset';
export type { Dataset, DatasetOptions, SplitContents } from './dataset';
export { editText } from './edit/edit-text';
export type { TextEdit } from './edit/edit-text';
export { allAnswers, allCaptions } from './example';
export type { Example } from './example';
export { commonestOf, countsOf, groupByName, groupExamples, lossRows, stableOrder } from './group';
export type { Counts } from './group';
export { PICTURE_NAME, picturesBelow } from './formats/folder';
export { imagesError } from './judge';
export type { TextRules } from './judge';
export type { Fractions } from './fractions';
export { imageBytes, imageId, readImage, sameContent } from './image-source';
export { ALPHAS, decodeImage } from './decode-image';
export type { Alpha, DecodeOptions } from './decode-image';
export type { RgbImage } from './samples';
export { ORIENTATIONS } from './orientation';
export type { ImageOrientation } from './orientation';
export { countRows, DataError, problemLines } from './errors';
export type { Problem } from './errors';
export { imagePixels, parseImageConfig } from './pixels';
export type { ImageConfig } from './pixels';
export { loadImageConfig, loadProcessor } from './processor';
export type { Processor, TextIds } from './processor';
export { fileOfImage, previewData } from './preview';
export type { DataPreview } from './preview';
export { frameIds, paddedRows, qformerText } from './qformer-text';
export type { QFormerText } from './qformer-text';
export { answerOf, captionOf, UNANSWERABLE } from './target';
export { thumbnail } from './thumbnail';
export { withinTime } from './time-limit';
export { loadTokenizer } from './tokenizer';
export type { Tokenizer } from './tokenizer';
