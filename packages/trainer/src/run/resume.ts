/** Whether a run can be resumed, and from which checkpoint, found before anything is loaded or computed. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { parseLines, textOf } from '../report/run-files';
import type { Checkpoint, Damaged, RunIdentity } from './checkpoint';
import { findCheckpoint } from './checkpoint';
import type { ImageList } from './identity';
import { changedImages, differences } from './identity';
import { RunFolderError } from './folder';

/**
 * The checkpoint to resume from, or undefined if the run has none yet.
 * @throws RunFolderError when every checkpoint is damaged, or when the identity of the run differs; RunFileError for a damaged log
 */
export async function checkpointToResume(
  dir: string,
  now: RunIdentity,
  say: (text: string) => void,
  images?: ImageList,
): Promise<Checkpoint | undefined> {
  const { found, damaged } = await findCheckpoint(dir);
  if (!found) {
    if (damaged.length > 0) throw allDamaged(dir, damaged);
    say('no checkpoint to resume from; starting at the beginning');
    return undefined;
  }
  refuseOther(found, now, await imageDifferences(dir, found.identity, now, images), say);
  if (!now.images || !found.identity.images)
    say('the contents of the images are not compared with those the run began with (cache_features: false)');
  await checkLogs(dir, found.logs);
  for (const { dir, why } of damaged) say(`skipped damaged checkpoint ${dir}: ${why}`);
  const [before, processes] = [found.identity, now].map(({ settings }) => Number(settings.world_size ?? 1));
  if (before !== processes)
    say(
      `${processes} process${processes === 1 ? '' : 'es'} instead of ${before}: the same batches, other dropout masks`,
    );
  const { backend } = found.identity;
  if (backend !== now.backend)
    say(`backend was ${backend}, is ${now.backend}: results will agree, but not bit by bit`);
  return found;
}

/** The report reads these files at the very end. @throws RunFileError for a damaged one */
async function checkLogs(dir: string, lengths: Record<string, number>): Promise<void> {
  for (const [name, length] of Object.entries(lengths)) {
    const file = join(dir, name);
    if (!name.endsWith('.jsonl') || !existsSync(file)) continue;
    parseLines(await textOf(file, length), file);
  }
}

function allDamaged(dir: string, damaged: Damaged[]): RunFolderError {
  const lines = damaged.map((one) => `${one.dir}: ${one.why}`);
  return new RunFolderError(
    `${dir}: cannot resume, because every checkpoint is damaged:\n  ${lines.join('\n  ')}\n` +
      'Put one back from a copy and use --resume again, or leave out --resume and start a new run in another folder.',
  );
}

async function imageDifferences(
  dir: string,
  was: RunIdentity,
  now: RunIdentity,
  images?: ImageList,
): Promise<string[]> {
  if (!images || !was.images || was.images === now.images || was.data !== now.data) return [];
  const changed = (await changedImages(dir, images)) ?? [];
  const some = changed.slice(0, 5).join(', ');
  const more = changed.length > 5 ? `, … (${changed.length} images)` : '';
  return [`data: images are not those the run began with${some && `: ${some}${more}`}`];
}

/** A run may be continued beyond its end; every other difference is refused. */
function refuseOther(
  { dir, identity, train }: Checkpoint,
  now: RunIdentity,
  images: string[],
  say: (text: string) => void,
): void {
  const changed = [...differences(identity, now), ...images];
  if (changed.length === 0) return;
  const settings = extended(identity.settings, now.settings);
  if (images.length > 0 || differences({ ...identity, settings }, now).length > 0)
    throw new RunFolderError(
      `${dir}: cannot resume, because the run has changed:\n  ${changed.join('\n  ')}\n` +
        'Set these back, or start a new run in another folder.',
    );
  const constant = now.settings.lr_scheduler_type === 'constant';
  say(
    `continuing beyond the end that the run began with (${changed.join(', ')}): ` +
      (constant
        ? 'the learning rate is constant, so the result is that of one longer run'
        : `from step ${train.step} on the learning rate is that of a run of the new length (${String(now.settings.lr_scheduler_type)}), as in ` +
          'transformers; before it was that of the shorter one, so the result is not exactly that of one longer run'),
  );
}

/** Settings of a checkpoint with the larger length of the run. */
function extended(was: RunIdentity['settings'], now: RunIdentity['settings']): RunIdentity['settings'] {
  const longer = (['num_train_epochs', 'max_steps'] as const).filter(
    (key) => Number(now[key]) > Number(was[key]),
  );
  return { ...was, ...Object.fromEntries(longer.map((key) => [key, now[key]])) };
}
