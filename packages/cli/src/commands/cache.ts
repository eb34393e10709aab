/** `blip2 cache`: lists and removes what `fit` and int8 keep on disk. */
import { basename } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { cacheEntries, defaultCacheDir, removeEntry } from '@blip2/trainer';
import type { CacheEntry } from '@blip2/trainer';
import { command } from '../options';
import type { Ui } from '../ui';
import { bytes, columns } from '../ui';

interface CacheFlags {
  cacheDir?: string;
}

interface PruneFlags extends CacheFlags {
  olderThan: number;
  all?: boolean;
  dryRun?: boolean;
}

export function cacheCommand(ui: Ui): Command {
  return new Command('cache')
    .description(
      'List and remove cached features, and weights rounded to int8; both are made again when needed.',
    )
    .addHelpText('after', '\nExample:\n  $ blip2 cache list')
    .addCommand(listCommand(ui))
    .addCommand(pruneCommand(ui));
}

const withFolder = (target: Command) =>
  target.option('--cache-dir <dir>', `cache folder (default: ${defaultCacheDir()}, as for fit)`);

function listCommand(ui: Ui): Command {
  return withFolder(
    command(
      'list',
      'Size, pictures, model and last use of each entry, the oldest first.',
      'blip2 cache list',
    ),
  ).action((flags: CacheFlags) => list(flags, ui));
}

function pruneCommand(ui: Ui): Command {
  const age = new Option('--older-than <time>', 'remove what was not used for this time, such as 12h or 30d');
  return withFolder(
    command(
      'prune',
      'Remove old entries, except those that a running fit uses.',
      'blip2 cache prune --older-than 7d --dry-run',
    ),
  )
    .addOption(
      age
        .argParser(duration)
        .default(30 * DAY, '30d')
        .conflicts('all'),
    )
    .option('--all', 'remove entries of any age')
    .option('--dry-run', 'remove nothing, but print what would be removed')
    .action((flags: PruneFlags) => prune(flags, ui));
}

async function list({ cacheDir = defaultCacheDir() }: CacheFlags, ui: Ui): Promise<void> {
  const entries = await cacheEntries(cacheDir);
  const total = sizeOf(entries);
  ui.result({ folder: cacheDir, bytes: total, entries }, () =>
    [...table(entries), `${entries.length} entries, ${bytes(total)}, in ${cacheDir}`].join('\n'),
  );
}

async function prune(flags: PruneFlags, ui: Ui): Promise<void> {
  const { cacheDir = defaultCacheDir(), olderThan, all, dryRun } = flags;
  const before = Date.now() - olderThan;
  const entries = (await cacheEntries(cacheDir)).filter(
    ({ last_used }) => all || Number(last_used) <= before,
  );
  const [removed, in_use]: [CacheEntry[], CacheEntry[]] = [[], []];
  for (const entry of entries)
    (!entry.in_use && (dryRun || (await removeEntry(entry))) ? removed : in_use).push(entry);
  const freed = sizeOf(removed);
  ui.result({ folder: cacheDir, dry_run: dryRun ?? false, freed_bytes: freed, removed, in_use }, () => {
    const done = dryRun ? 'would be freed' : 'freed';
    const kept = in_use.map(({ path }) => `in use, kept: ${path}`);
    const sum = `${bytes(freed)} (${freed.toLocaleString('en')} bytes) ${done}: ${removed.length} entries of ${cacheDir}`;
    return [...table(removed), ...kept, sum].join('\n');
  });
}

const sizeOf = (entries: readonly CacheEntry[]) => entries.reduce((sum, entry) => sum + entry.bytes, 0);

function table(entries: readonly CacheEntry[]): string[] {
  if (entries.length === 0) return [];
  const rows = entries.map((entry) => [
    basename(entry.path),
    bytes(entry.bytes).padStart(10),
    entry.kind === 'int8' ? '–' : entry.pictures,
    entry.in_use ? 'in use' : entry.last_used.toISOString().slice(0, 10),
    entry.model ?? 'unknown',
  ]);
  return [columns([['entry', 'size'.padStart(10), 'pictures', 'last used', 'model'], ...rows])];
}

const DAY = 86_400_000;
const UNITS: Readonly<Record<string, number>> = { m: 60_000, h: 3_600_000, d: DAY, w: 7 * DAY };

/** Parses `30d` to milliseconds. */
function duration(text: string): number {
  const [, count, unit] = /^(\d+(?:\.\d+)?)([mhdw])$/.exec(text) ?? [];
  if (count !== undefined) return Number(count) * UNITS[unit];
  throw new InvalidArgumentError(`Expected a time such as 30d or 12h, found "${text}".`);
}
