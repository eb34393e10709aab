/**
 * When the addon gets no memory, whatever it asked for, the operation ends in an exception, and the next one works and gives the same
 * bits. Some allocations of loading, a training step and a caption here; `npm run allocations` takes all.
 */
import { execFile } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { useBackend } from '@blip2/nn/node';
import { beforeAll, describe, expect, it } from 'vitest';
import { failInTurn, operations } from './allocations';
import type { FaultyAddon, Outcome } from './allocations';

/** So many allocations of each operation, spread over all. */
const MOST = Number(process.env.BLIP2_ALLOCATIONS ?? 25);
const LONG = process.env.BLIP2_ALLOCATIONS ? 7_200_000 : 300_000;

const script = fileURLToPath(new URL('../../backend-native/build.mjs', import.meta.url));
const file = join(dirname(script), 'build', 'faulty', 'blip2_native.node');

describe.skipIf(process.platform !== 'linux')('an addon whose allocations fail', () => {
  let addon: FaultyAddon;
  beforeAll(async () => {
    await promisify(execFile)(process.execPath, [script, '--faults']);
    process.env.BLIP2_NATIVE_ADDON = file;
    addon = createRequire(import.meta.url)(file) as FaultyAddon;
  }, 600_000);

  it.each(['float32', 'auto'] as const)(
    'throws, and then works again, in precision %s',
    async (precision) => {
      const { precision: used } = await useBackend('native', { precision });
      if (precision === 'auto' && used === 'float32') return;
      for (const [name, run] of Object.entries(await operations())) {
        const outcome = await failInTurn(addon, run, MOST);
        console.error(line(`${name}, ${used}`, outcome));
        expect(outcome.wrong).toEqual([]);
        const thrown = Object.values(outcome.exceptions).reduce((sum, n) => sum + n, 0);
        expect(thrown + outcome.completed).toBe(outcome.failed);
        expect(thrown).toBeGreaterThan(0);
        expect(Object.keys(outcome.exceptions).filter((why) => !/memory/.test(why))).toEqual([]);
      }
    },
    LONG,
  );
});

function line(name: string, { allocations, failed, exceptions, completed }: Outcome): string {
  const found = Object.entries(exceptions).map(([why, n]) => `  ${n} × ${why}`);
  const counts = `${allocations} allocations, ${failed} failed, ${completed} done without, 0 crashes`;
  return [`${name}: ${counts}`, ...found.sort()].join('\n');
}
