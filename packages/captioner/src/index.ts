export { createCaptioner } from './captioner';
export type { Captioner, ScoreOptions } from './captioner';
export { CaptionerError } from './errors';
export type { ErrorName } from './errors';
export type { TextStream } from './stream';
export type {
  CaptionerInfo,
  CaptionerOptions,
  CaptionerState,
  GeneratedText,
  GenerationOptions,
  ImageSource,
  RequestOptions,
  ScoredText,
  TextOptions,
  TextToken,
  TokenChoice,
} from './types';
