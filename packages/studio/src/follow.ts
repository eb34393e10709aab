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

/** The last rows of a file of JSON Lines, as far as they are in its last bytes; none if it is not there. */
export async function lastRows<T>(file: string, bytes = 1 << 18): Promise<T[]> {
  const handle = await open(file).catch(() => undefined);
  if (!handle) return [];
  try {
    const { size } = await handle.stat();
    const from = Math.max(0, size - bytes);
    const tail = Buffer.alloc(size - from);
    const { bytesRead } = await handle.read(tail, 0, tail.length, from);
    const whole = tail.subarray(0, tail.subarray(0, bytesRead).lastIndexOf(10) + 1);
    const lines = whole
      .toString('utf8')
      .split('\n')
      .slice(from > 0 ? 1 : 0);
    return lines.filter(Boolean).flatMap((line) => parsed<T>(line));
  } finally {
    await handle.close();
  }
}
