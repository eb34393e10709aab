export { generateCaptions, promptOf, readImages, referenceOf } from './captions';
export type { CaptionOptions } from './captions';
export { blankCaptions, runControls } from './controls';
export type { ControlOptions } from './controls';
export { formatShare, formatTable, margin, resultRow } from './results';
export type { ResultRow, ResultsTable } from './results';
export { partNames, partsReader, scoreCaptions } from './score';
export type { Score } from './score';
