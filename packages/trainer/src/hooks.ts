/** Callbacks of `fit`, and the signal that stops it. */
import type { IfExists } from './run/folder';
import type { TrainingSample } from './run/logs';
import type { Progress } from './train/train';

/** Hooks of any long-running function. */
export interface WorkHooks {
  signal?: AbortSignal;
  onMessage?(text: string): void;
  onPhase?(phase: { name: string; done: number; total: number }): void;
}

export interface FitHooks extends WorkHooks {
  resume?: boolean;
  /** what to do when output_dir is taken: an error (default), or the next free DIR-2, DIR-3… */
  ifExists?: IfExists;
  /** the command line of this run, for environment.json */
  command?: string;
  onProgress?(progress: Progress): void;
  /** every row of metrics.jsonl as it is written */
  onMetrics?(row: Record<string, unknown>): void;
  /** texts of the fixed images (`sample_steps`): before, during and after training */
  onSamples?(rows: TrainingSample[]): void;
}

/** Hooks for ranks above 0, which report nothing. */
export function silent({ signal, resume, ifExists }: FitHooks): FitHooks {
  return { signal, resume, ifExists };
}
