/** Ctrl-C in work that stops at a good place. */
import type { Ui } from './ui';

/** Runs `work` with a signal that the first Ctrl-C aborts, which prints `stopping`; the second one ends the process. */
export async function withInterrupt<T>(
  ui: Ui,
  stopping: string,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const controller = new AbortController();
  const release = ui.io.onInterrupt(() => {
    if (controller.signal.aborted) return ui.io.exit(130);
    ui.log(stopping);
    controller.abort();
  });
  try {
    return await work(controller.signal);
  } finally {
    release();
  }
}
