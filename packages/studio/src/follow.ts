/** Follows files of JSON Lines while another process appends to them. */
import { open } from 'node:fs/promises';

const MOST_AT_ONCE = 4 << 20;

/** The rows that were added since the last call; `cut` if the file is shorter than it was: what was read before is void. */
export type Follow<T> = () => Promise<{ rows: T[]; cut: boolean }>;

export function follow<T>(file: string): Follow<T> {
  let at = 0;
  return async () => {
    const handle = await open(file).catch(() => undefined);
    if (!handle) return { rows: [], cut: restart(() => (at = 0), at > 0) };
    try {
      const { size } = await handle.stat();
      const cut = restart(() => (at = 0), size < at);
      const bytes = Buffer.alloc(Math.min(size - at, MOST_AT_ONCE));
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, at);
      const end = bytes.subarray(0, bytesRead).lastIndexOf(10) + 1; // a line that is written in part is left for later
      at += end;
      const lines = bytes.toString('utf8', 0, end).split('\n').filter(Boolean);
      return { rows: lines.flatMap((line) => parsed<T>(line)), cut };
    } finally {
      await handle.close();
    }
  };
}

function restart(reset: () => void, cut: boolean): boolean {
  if (cut) reset();
  return cut;
}

function parsed<T>(line: string): T[] {
  try {
    return [JSON.parse(line) as T];
  } catch {
    return []; // the report names damaged lines
  }
}
