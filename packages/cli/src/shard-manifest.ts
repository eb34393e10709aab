/** The proof that the texts of all shards are there, and nothing else. */
import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { readJsonFile, readRegular, writeFileAtomic } from '@blip2/weights/node';
import type { ShardRecord } from './shards';
import { finished } from './shards';

export interface ShardManifest {
  output: string;
  rows: number;
  /** rows with an error in place of a text */
  failed: number;
  settings: unknown;
  shards: ShardRecord[];
}

/**
 * Checks the files of all shards against their records and writes `manifest.json` in the folder.
 * @throws Error, before anything is written, for a shard that is not finished, a file that was changed, or one of another shard
 */
export async function joinShards(folder: string, shards: string[]): Promise<ShardManifest> {
  const records: ShardRecord[] = [];
  const missing: string[] = [];
  for (const shard of shards) {
    const record = await finished(folder, shard);
    if (record) records.push(record);
    else missing.push(basename(shard));
  }
  if (missing.length > 0)
    throw new Error(
      `${folder}: ${missing.length} of ${shards.length} shards are not finished: ${some(missing)}; run the same array job ` +
        'again, which does what is missing',
    );
  for (const { file, sha256 } of records) {
    const found = createHash('sha256')
      .update(await readRegular(join(folder, file)))
      .digest('hex');
    if (found !== sha256)
      throw new Error(
        `${join(folder, file)}: expected the content that was written (SHA-256 ${sha256}), found ${found}; delete it and run ` +
          'the same array job again',
      );
  }
  await refuseOthers(folder, records);
  const sum = (name: 'rows' | 'failed') => records.reduce((total, record) => total + record[name], 0);
  const settings: unknown = await readJsonFile(join(folder, 'settings.json'));
  const manifest = { output: folder, rows: sum('rows'), failed: sum('failed'), settings, shards: records };
  await writeFileAtomic(join(folder, 'manifest.json'), JSON.stringify(manifest, null, 2) + '\n');
  return manifest;
}

/** @throws Error for texts of shards that were not named: a reader of the folder would take them as well */
async function refuseOthers(folder: string, records: ShardRecord[]): Promise<void> {
  const own = new Set(records.map(({ file }) => file));
  const others = (await readdir(folder)).filter(
    (name) => /^[^.].*\.(?:jsonl|parquet)$/.test(name) && !own.has(name),
  );
  if (others.length > 0)
    throw new Error(
      `${folder}: ${others.length} files are of shards that were not named: ${some(others)}; name all shards, or move these away`,
    );
}

const some = (names: string[]) => names.slice(0, 5).join(', ') + (names.length > 5 ? ', …' : '');
