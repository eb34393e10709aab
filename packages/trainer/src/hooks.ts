/** What a caller of `fit` may listen to, and its signal to stop. */
import type { IfExists } from './run/folder';
import type { Progress } from './train/train';

/** Of any long piece of work. */
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
}

/** The hooks of a rank that reports nothing, because rank 0 does. */
export function silent({ signal, resume, ifExists }: FitHooks): FitHooks {
  return { signal, resume, ifExists };
}
