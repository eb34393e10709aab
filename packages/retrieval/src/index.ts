export { isRetrievalConfig, parseRetrievalConfig } from './config';
export type { RetrievalConfig } from './config';
export { embedImages, embedTexts, imageTokens, matchScores, retrievalWeights, similarity } from './model';
export type { RetrievalModel, RetrievalParams, TextRows } from './model';
export { textRows } from './texts';
export { recall } from './recall';
export type { Recall, RetrievalScores } from './recall';
export { contrastiveLoss, generationLoss, hardNegatives, matchingLoss } from './losses';
export type { Negatives, WordHead } from './losses';
