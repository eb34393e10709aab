/** Options and results of a captioner. */
import type { GenerateOptions, TextEnd } from '@blip2/blip2';
import type { DecodeOptions } from '@blip2/data-captions';
import type { BackendName, Precision } from '@blip2/nn';

export interface CaptionerOptions extends DecodeOptions {
  /** A checkpoint folder in Hugging Face's layout, or a name of the Hub that `blip2 pull` has fetched. */
  model: string;
  /** A PEFT adapter, used where a request names none. Its name is `default`. */
  adapter?: string;
  /** Further adapters on the same base, by names that requests give. `base` is the model without any. */
  adapters?: Readonly<Record<string, string>>;
  /** `auto` by default. */
  backend?: BackendName | 'auto';
  /** `auto` by default: bfloat16 where the processor or the GPU is faster with it. */
  precision?: Precision | 'auto';
  /** Most requests that are computed together; 8 by default. */
  max_batch?: number;
  /** Most requests that wait behind those; 64 by default. One more is refused with a QueueFullError. */
  max_queue?: number;
  /**
   * Most bytes of what the model made of pictures and is kept for those that are asked about again; 64 MiB by default, about 200 pictures at
   * 2.7 billion parameters. 0: nothing is kept.
   */
  picture_cache_bytes?: number;
  /** Most bytes of a picture's file; 64 MiB by default. */
  max_bytes?: number;
  /** Time limit of a request, waiting included, in milliseconds; none by default. */
  time_limit_ms?: number;
  /** Folder for weights that `int8` and `int4` round, so that they are rounded once; by default they are rounded at each start. */
  cache_dir?: string;
  /** The worker's program, `dist/worker.js` of this package, where a bundler has moved the code away from it. */
  worker?: URL;
}

/** The bytes of a picture's file, or a path, a `file:` URL, or a Blob. */
export type ImageSource = Uint8Array | ArrayBuffer | Blob | URL | string;

export interface RequestOptions {
  /** The name of an adapter, or `base`. By default the captioner's `adapter`, else the first of its `adapters`, else `base`. */
  adapter?: string;
  /** Aborting rejects the promise with its reason, and frees the place. */
  signal?: AbortSignal;
  /** In place of the captioner's. */
  time_limit_ms?: number;
}

/** Options of `generate` in @blip2/blip2, under their names in transformers. */
export type GenerationOptions = Pick<
  GenerateOptions,
  | 'max_new_tokens'
  | 'num_beams'
  | 'length_penalty'
  | 'early_stopping'
  | 'min_new_tokens'
  | 'repetition_penalty'
  | 'no_repeat_ngram_size'
  | 'do_sample'
  | 'temperature'
  | 'top_k'
  | 'top_p'
  | 'seed'
  | 'stop_strings'
>;

export interface TextOptions extends RequestOptions, GenerationOptions {
  /** `caption`: the text that it continues. `answer`: the template, with {} for the question. */
  prompt?: string;
  /** So many of the likeliest tokens at each position are in `top` of its token: 0 (the default) to 20. */
  top_tokens?: number;
  /** Whether each token of the result has its `attention_map`. It costs a forward pass of the text for each query of the Q-Former, after the text. */
  attention_map?: boolean;
}

/** A token that could be at a position. */
export interface TokenChoice {
  id: number;
  /** What it would add to the text. */
  text: string;
  /** As that of TextToken. */
  probability: number;
}

/** A token of a text. */
export interface TextToken {
  id: number;
  /** What it adds to the text; the pieces of all tokens make up the text. Empty while a character is incomplete. */
  text: string;
  /** The model's probability of this token after those before it: before temperature, limits and rules. */
  probability: number;
  /** The likeliest tokens at its place, with `top_tokens`. */
  top?: TokenChoice[];
  /**
   * In a result with `attention_map`: how much the queries that this token needed attend to each patch of the picture, row by row of a square.
   * A Q-Former that reads the question has none.
   */
  attention_map?: number[];
}

export interface GeneratedText {
  text: string;
  /** Geometric mean of the probabilities of the tokens, the end token included: 0 … 1. */
  confidence: number;
  tokens: TextToken[];
  /** Why the text ended. */
  end: TextEnd;
  /** Positions of image and prompt. */
  prompt_tokens: number;
}

/** A given text with its score. */
export interface ScoredText {
  text: string;
  /** Natural logarithm of its probability after picture and question, its end token included. */
  log_probability: number;
  /** Its share among the given texts: they sum to 1. */
  probability: number;
  tokens: TextToken[];
}

/** What a captioner runs on. */
export interface CaptionerInfo {
  /** The folder of the model. */
  model: string;
  backend: BackendName;
  precision: Precision;
  /** Names for `adapter`; the first one is the default. */
  adapters: readonly string[];
  /** Tokens that image, prompt and text may have together; undefined if there is no limit. */
  max_positions?: number;
}

export interface CaptionerState {
  /** `starting` at first and after a crash; `failed` if the last start failed: the next request starts again. */
  state: 'starting' | 'ready' | 'failed' | 'closed';
  /** Requests that are computed. */
  running: number;
  /** Requests that wait for them. */
  waiting: number;
  /** How often the worker was started again after a crash. */
  restarts: number;
  /** Tokens since the start. */
  tokens: number;
}
