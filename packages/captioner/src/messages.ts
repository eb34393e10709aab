/** What the threads send each other. Everything here can be cloned. */
import type { DecodeOptions } from '@blip2/data-captions';
import type { CaptionerError } from './errors';
import type {
  CaptionerInfo,
  CaptionerOptions,
  GeneratedText,
  GenerationOptions,
  ScoredText,
  TextToken,
} from './types';

/** What the worker needs to start. */
export type WorkerOptions = Pick<
  CaptionerOptions,
  | 'model'
  | 'adapter'
  | 'adapters'
  | 'backend'
  | 'precision'
  | 'cache_dir'
  | 'picture_cache_bytes'
  | keyof DecodeOptions
>;

/** What a request asks for. Picture: bytes of a file, or its path. */
export interface Task {
  image: Uint8Array | string;
  adapter?: string;
  question?: string;
  prompt?: string;
  generation: GenerationOptions;
  top_tokens?: number;
  attention_map?: boolean;
  /** Score these instead of generating a text. */
  answers?: readonly string[];
}

export type ToWorker =
  { type: 'request'; id: number; task: Task } | { type: 'cancel'; id: number } | { type: 'close' };

export type FromWorker =
  | { type: 'ready'; info: CaptionerInfo }
  | { type: 'failed'; message: string }
  | { type: 'token'; id: number; token: TextToken }
  | { type: 'text'; id: number; text: GeneratedText }
  | { type: 'scores'; id: number; scores: ScoredText[] }
  | { type: 'error'; id: number; name: CaptionerError['name']; message: string }
  /** The end of a cancelled request. */
  | { type: 'cancelled'; id: number };

/** Marks the data of a thread that shall run the worker. */
export interface WorkerData {
  blip2Captioner: WorkerOptions;
}
