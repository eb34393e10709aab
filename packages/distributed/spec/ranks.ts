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
  /** nanoseconds to sum a byte of gradients: the least of many short sums, which other programs hardly disturb */
  async timing(world) {
    const shape = [2 ** 20];
    const times: number[] = [];
    for (let i = 0; i < 100; i++) {
      const own = [tensor(new Float32Array(shape[0]).fill(world.rank), shape)];
      await world.barrier();
      const begin = performance.now();
      dispose(await world.sum(own));
      times.push(performance.now() - begin);
    }
    return (1e6 * Math.min(...times)) / (4 * shape[0]);
  },
  async failing(world) {
    if (world.rank === 1) throw new Error('a rank that fails');
    await world.barrier();
    return 'went on';
  },
  /** ends while it waits for the others itself, as by a second Ctrl-C */
  async leaving(world) {
    if (world.rank === 1) setImmediate(() => process.exit(7));
    else await setTimeout(60_000);
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
