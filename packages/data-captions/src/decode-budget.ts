/** Limits the memory of images that are decoded at the same time. */

/** Runs a job when its share of the memory is free. */
export type Budget = <T>(bytes: number, job: () => Promise<T>) => Promise<T>;

/** Jobs start in order, as many at a time as fit into `limit` bytes together; a larger one runs alone. */
export function memoryBudget(limit: number): Budget {
  let used = 0;
  const waiting: { bytes: number; start: () => void }[] = [];
  const startWaiting = () => {
    while (waiting.length > 0 && (used === 0 || used + waiting[0].bytes <= limit)) {
      used += waiting[0].bytes;
      waiting.shift()!.start();
    }
  };
  return async (bytes, job) => {
    await new Promise<void>((start) => {
      waiting.push({ bytes, start });
      startWaiting();
    });
    try {
      return await job();
    } finally {
      used -= bytes;
      startWaiting();
    }
  };
}
