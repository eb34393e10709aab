/** Texts of many images, whose batches are divided among the ranks of a world. */
import type { Example } from '@blip2/data-captions';
import type { World } from '../train/world';
import { gather, shareWork } from '../train/world';
import type { CaptionOptions, generateCaptions } from './captions';

/** Another rank was stopped, so this one stops as well. */
export class StoppedElsewhere extends Error {
  override readonly name = 'StoppedElsewhere';
}

/**
 * `generate` with its batches dealt out to the ranks, in turn. The batches are those of one process, and so are the texts, which
 * every rank gets. All ranks must call it with the same examples.
 * @throws the signal's reason, or StoppedElsewhere on ranks whose own signal is not raised; the errors of shareWork
 */
export function divided(world: World, generate: typeof generateCaptions): typeof generateCaptions {
  if (world.size === 1) return generate;
  return async (model, processor, examples, o) => {
    const count = Math.ceil(examples.length / o.batch_size);
    const own: string[][] = [];
    let stopped = false;
    const share = async () => {
      for (let batch = world.rank; batch < count; batch += world.size) {
        const { rows, options } = batchOf(examples, o, batch * o.batch_size);
        own.push(await generate(model, processor, rows, options));
        o.onProgress?.(Math.min(examples.length, (batch + world.size) * o.batch_size), examples.length);
      }
    };
    await shareWork(world, () =>
      share().catch((error: unknown) => {
        if (!o.signal?.aborted || error !== o.signal.reason) throw error;
        stopped = true;
      }),
    );
    if (await world.any(stopped)) throw o.signal?.aborted ? o.signal.reason : new StoppedElsewhere();
    const all = (await gather(world, JSON.stringify(own))).map((text) => JSON.parse(text) as string[][]);
    return Array.from({ length: count }, (_, i) => all[i % world.size][Math.floor(i / world.size)]).flat();
  };
}

/** One batch as a call of its own. */
function batchOf(examples: Example[], { embeds, first_row = 0, ...o }: CaptionOptions, from: number) {
  const options: CaptionOptions = {
    ...o,
    first_row: first_row + from,
    onProgress: undefined,
    embeds: embeds && ((indices) => embeds(indices.map((i) => i + from))),
  };
  return { rows: examples.slice(from, from + o.batch_size), options };
}
