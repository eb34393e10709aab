/** A program that specs start on several ranks: it does what its argument names and prints a line of JSON for each rank. */
import { setTimeout } from 'node:timers/promises';
import { dispose, tensor } from '@blip2/nn';
import type { Tensor } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { openWorld } from '../src/world';
import type { OpenWorld } from '../src/world';

const PROGRAMS: Record<string, (world: OpenWorld) => Promise<unknown>> = {
  /** tensors of unlike sizes, one longer than what is exchanged at once */
  async sum(world) {
    const sizes = [[], [3], [0], [1_000_003], [2, 5]];
    const own = sizes.map((shape, t) => {
      const size = shape.reduce((product, n) => product * n, 1);
      return tensor(
        Float32Array.from({ length: size }, (_, i) => valueAt(world.rank, t, i)),
        shape,
      );
    });
    const sums = await world.sum(own);
    const wrong = await Promise.all(sums.map((sum, t) => wrongOf(sum, t, world.size)));
    const shapes = sums.map(({ shape }) => shape);
    dispose(sums);
    return { shapes, wrong };
  },
  async any(world) {
    const flags = [false, world.rank === world.size - 1, true];
    const all: boolean[] = [];
    for (const flag of flags) all.push(await world.any(flag));
    return all;
  },
  /** the event loop turns while this rank waits for a slow one */
  async waiting(world) {
    let turns = 0;
    const timer = setInterval(() => turns++, 10);
    const { user } = process.cpuUsage();
    if (world.rank === 0) await setTimeout(1000);
    await world.barrier();
    clearInterval(timer);
    return { turns, busy: (process.cpuUsage().user - user) / 1e6 };
  },
  /** median seconds to sum the gradients of LoRA (r = 16) and of the Q-Former of blip2-opt-2.7b, without waiting for a slow rank */
  async timing(world) {
    const seconds: Record<string, number> = {};
    for (const [what, numbers] of [
      ['lora', 10_485_760],
      ['qformer', 107_130_880],
    ] as const) {
      const times: number[] = [];
      for (let i = 0; i < 9; i++) {
        const own = [tensor(new Float32Array(numbers).fill(world.rank), [numbers])];
        await world.barrier();
        const begin = performance.now();
        dispose(await world.sum(own));
        times.push((performance.now() - begin) / 1000);
      }
      seconds[what] = times.sort((a, b) => a - b)[4];
    }
    return seconds;
  },
  async failing(world) {
    if (world.rank === 1) throw new Error('a rank that fails');
    await world.barrier();
    return 'went on';
  },
};

/** Numbers whose float32 sum depends on the order. */
const valueAt = (rank: number, t: number, i: number) => Math.sin(i + t) * 10 ** ((rank * 3 + i) % 7);

/** How many elements are not the sum in order of rank, in double, rounded once. */
async function wrongOf(sum: Tensor, t: number, size: number): Promise<number> {
  const values = await sum.data();
  let wrong = 0;
  for (let i = 0; i < values.length; i++) {
    let total = 0;
    for (let rank = 0; rank < size; rank++) total += Math.fround(valueAt(rank, t, i));
    if (values[i] !== Math.fround(total)) wrong++;
  }
  return wrong;
}

const world = await openWorld();
await useBackend('cpu');
const found = await PROGRAMS[process.argv[2]](world);
await world.close();
console.log(JSON.stringify({ rank: world.rank, size: world.size, found }));
