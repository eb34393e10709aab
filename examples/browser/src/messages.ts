/** What the page and its worker send each other. */
import type { FitSettings, Row } from './fit';

/** Calls of the page: arguments and result of each. */
export interface Calls {
  /** Loads the base from a folder of the site; `backend` auto is the fastest that this browser has. */
  open: { args: { backend: BackendChoice; folder: string }; result: Opened };
  /** Decodes a picture and captions it. */
  add: { args: { name: string; file: Blob }; result: Added };
  remove: { args: { name: string }; result: undefined };
  /** `watched` are the pictures whose captions are shown during training. */
  fit: { args: { rows: Row[]; watched: string[]; settings: FitSettings }; result: Fitted };
}

export type BackendChoice = 'auto' | 'webgpu' | 'wasm' | 'cpu';

export interface Opened {
  backend: string;
  /** what was found */
  why: string;
  /** why it is not WebGPU */
  missing?: string;
}

export interface Fitted {
  steps: number;
  trainable: number;
  seconds: number;
  /** of PEFT's adapter folder */
  files: Map<string, Blob>;
}

export type CallName = keyof Calls;

/** A call, or the wish to end training after this step. */
export type ToWorker =
  { [Name in CallName]: { id: number; call: Name; args: Calls[Name]['args'] } }[CallName] | { stop: true };

export type FromWorker =
  { id: number; result: Calls[CallName]['result'] } | { id: number; error: string } | { event: Progress };

export type Progress =
  | { kind: 'loading'; loaded: number; total: number }
  | { kind: 'step'; step: number; loss: number; seconds: number }
  | { kind: 'captions'; step: number; captions: [name: string, caption: string][] };

export interface Added {
  /** caption of the base */
  base: string;
  /** caption of the trained model, if there is one */
  now?: string;
}
