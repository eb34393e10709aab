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
export { allAnswers, allCaptions, commonestOf } from './example';
export type { Example } from './example';
export { countsOf, groupByName, groupExamples, lossRows, stableOrder } from './group';
export type { Counts } from './group';
export { PICTURE_NAME, picturesBelow } from './formats/folder';
export { imagesError, mayPass } from './image-errors';
export type { TextRules } from './judge';
export type { Fractions } from './fractions';
export { imageBytes, imageId, readImage, sameContent } from './image-source';
export { decodeImage } from './decode-image';
export type { DecodeOptions } from './decode-image';
export { ALPHAS, toRgb } from './samples';
export type { Alpha, RgbImage, Samples } from './samples';
export { ORIENTATIONS } from './orientation';
export type { ImageOrientation } from './orientation';
export { countRows, DataError, problemLines } from './errors';
export type { Problem } from './errors';
export { imagePixels } from './image-pixels';
export { parseImageConfig, pixelValues } from './pixels';
export type { ImageConfig } from './pixels';
export { loadImageConfig, loadProcessor } from './load-processor';
export { makeProcessor } from './processor';
export type { Processor, ProcessorParts, TextIds } from './processor';
export { fileOfImage, previewData } from './preview';
export type { DataPreview } from './preview';
export { frameIds, paddedRows, qformerText } from './qformer-text';
export type { QFormerText } from './qformer-text';
export { SHARD_NAME, shardPictures } from './shard';
export type { ShardPicture } from './shard';
export { answerOf, captionOf, UNANSWERABLE } from './target';
export { thumbnail } from './thumbnail';
export { withinTime } from './time-limit';
export { loadTokenizer } from './tokenizer-files';
export { makeTokenizer } from './tokenizer';
export type { Tokenizer, TokenizerJson } from './tokenizer';
