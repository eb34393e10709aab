/** Measurements of adapters in `blip2/webgpu` of XDG_CACHE_HOME or ~/.cache, a file for each. They may be deleted at any time. */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import type { Measurements } from './device';

const folder = () => join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'blip2', 'webgpu');
const fileOf = (key: string) => join(folder(), `tiles-${key}.json`);

export const measurements: Measurements = {
  read(key) {
    try {
      return readFileSync(fileOf(key), 'utf8');
    } catch {
      return undefined; // not measured yet
    }
  },
  write(key, text) {
    const file = fileOf(key);
    const own = `${file}.${process.pid}`;
    try {
      mkdirSync(folder(), { recursive: true });
      writeFileSync(own, `${text}\n`);
      renameSync(own, file);
    } catch {
      // measured again by the next process
    }
  },
};
