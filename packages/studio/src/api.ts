/** What page and server say to each other. Types only. */
import type { DataPreview, DataReport, Layout } from '@blip2/data-captions';
import type { Choice, Fits, LeftOut, MetricRow, PresetName, TrainingSample, Verdict } from '@blip2/trainer';

export type { DataPreview, DataReport, Layout, MetricRow };

/** GET /api/studio */
export interface StudioInfo {
  folders: string[];
  /** where runs are made, as shown */
  runs: string;
}

/** GET /api/files?path= */
export interface Listing {
  path: string;
  /** undefined at a root */
  parent?: string;
  entries: FileEntry[];
  /** so many entries are not listed */
  more: number;
}
export interface FileEntry {
  name: string;
  path: string;
  kind: 'folder' | 'data' | 'model' | 'run';
}

/** A data set, and where its columns are. */
export interface DataPlace extends Layout {
  path: string;
}

export type TextRole = 'caption' | 'question' | 'answer';

export interface DataRow {
  /** place in the data set, for its picture */
  index: number;
  split?: string;
  source: string;
  /** the source without its folder */
  place: string;
  texts: { role: TextRole; index: number; text: string }[];
}

/** GET /api/data */
export interface DataPage {
  path: string;
  splits: { name?: string; rows: number; bad: number }[];
  /** rows that were searched for */
  found: number;
  rows: DataRow[];
  /** the first rows that cannot be used */
  problems: { source: string; text: string }[];
}

/** POST /api/data/text */
export interface TextChange extends DataPlace {
  source: string;
  role: TextRole;
  index: number;
  from: string;
  to: string;
}

/** Settings of fit by name, those that studio passes on. */
export type Settings = Record<string, string | number | boolean>;

/** POST /api/settings: what fit would choose */
export interface ChosenSettings {
  choices: Choice[];
  /** config.yaml */
  yaml: string;
}

/** POST /api/jobs */
export type JobRequest =
  { kind: 'check'; data: DataPlace; model?: string } | { kind: 'plan'; settings: Settings; memory?: string };

/** The result of a plan, in words. */
export interface PlanTable {
  about: string[];
  rows: PlanRow[];
  left_out: LeftOut[];
}
export interface PlanRow {
  preset: PresetName;
  name: string;
  trains: string;
  when: string;
  fits: Fits;
  notes: string[];
  recommended?: string;
  /** by column */
  cells: Record<string, string>;
}

/** Events of /api/jobs/ID/events; `end` is the last. */
export type JobEvent =
  { type: 'log'; lines: string[] } | { type: 'end'; ok: boolean; result?: unknown; message?: string };

export type RunState = 'running' | 'stopping' | 'stopped' | 'failed' | 'finished';

/** GET /api/runs */
export interface RunSummary {
  name: string;
  state: RunState;
  model?: string;
  data?: string;
  preset?: string;
  steps?: number;
  outcome?: Verdict['outcome'];
  score?: string;
  /** whether its result can be tried */
  tryable: boolean;
  /** a damaged file */
  problem?: string;
}

/** Events of /api/runs/NAME/events. */
export type RunEvent =
  | { type: 'state'; state: RunState }
  /** the first one of a connection: forget all rows */
  | { type: 'restart' }
  | { type: 'metrics'; rows: MetricRow[] }
  | { type: 'samples'; rows: LiveSample[] }
  | { type: 'log'; lines: string[] };

/** `picture` is the number of the picture among those of the run. */
export type LiveSample = Omit<TrainingSample, 'image'> & { image: string; picture: number };

/**
 * POST /api/try?run=NAME&question=&prompt=, the body is a picture. The answer has one of these in each line, as they come. `text` is the number of
 * the text: 0 for the base, then the runs in their order.
 */
export type TryEvent =
  /** the word at place `at`, which is new or has grown */
  | { type: 'word'; text: number; at: number; word: TriedWord }
  /** the whole text, with the maps of its words */
  | { type: 'text'; text: number; said: string; words: TriedWord[] }
  | { type: 'failed'; message: string };

export interface TriedWord {
  text: string;
  probability: number;
  /**
   * Row by row of a square, relative to the largest: where the queries look that the word needed. Absent while the text grows, and for models
   * whose Q-Former reads the question.
   */
  map?: number[];
}
