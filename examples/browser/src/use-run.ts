/** Training, as the page shows it. */
import { useState } from 'preact/hooks';
import type { Client } from './client';
import type { Calls, Fitted, Progress } from './messages';

export interface Run {
  losses: readonly number[];
  /** altogether */
  steps: number;
  seconds: number;
  running: boolean;
  fitted?: Fitted;
  error?: string;
}

export interface RunControl {
  run: Run | undefined;
  start(args: Calls['fit']['args']): void;
  stop(): void;
  step(event: Extract<Progress, { kind: 'step' }>): void;
}

export function useRun(client: Client): RunControl {
  const [run, setRun] = useState<Run | undefined>();
  const change = (fields: Partial<Run>) => setRun((one) => one && { ...one, ...fields });
  return {
    run,
    start(args) {
      setRun({ losses: [], steps: args.settings.steps, seconds: 0, running: true });
      client.call('fit', args).then(
        (fitted) => change({ running: false, fitted }),
        (error: Error) => change({ running: false, error: error.message }),
      );
    },
    stop: () => client.stop(),
    step: ({ loss, seconds }) => setRun((one) => one && { ...one, losses: [...one.losses, loss], seconds }),
  };
}
