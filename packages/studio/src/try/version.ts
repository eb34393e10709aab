/** The version of a folder with weights. */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

/** Names, sizes and times of a folder's weights and settings: a text that changes with them. Empty for a folder that cannot be read. */
export async function versionOf(dir: string): Promise<string> {
  const names = (await readdir(dir).catch(() => [])).filter((name) => /\.(?:safetensors|json)$/.test(name));
  const facts = names.sort().map(async (name) => {
    const { size, mtimeMs } = (await stat(join(dir, name)).catch(() => undefined)) ?? {};
    return [name, size, mtimeMs];
  });
  return JSON.stringify(await Promise.all(facts));
}
