export {
  generateCaptions,
  promptOf,
  readImages,
  referenceOf,
  referencesOf,
  USUAL_NEW_TOKENS,
} from './captions';
export type { CaptionOptions } from './captions';
export {
  CAPTION_FIGURES,
  DEGENERATION,
  figuresOf,
  figureTables,
  namedFigures,
  prefixed,
  questionTypes,
  typeName,
} from './figures';
export type { Figures, TextScores } from './figures';
export { judge, namedJudgement } from './judge';
export type { Judgement, JudgeOptions } from './judge';
export { percent, times100 } from './numbers';
export { besides, EXACT, formatTable, sizeOf } from './results';
export type { ResultRow, ResultsTable } from './results';
export { partNames, partsReader, scoreCaptions } from './score';
export type { Score } from './score';
