/**
 * A captioner under load beside direct calls of generate in the server's own thread: how long each request takes, how many are done per second,
 * and how long the thread cannot answer anything else.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { generate, textIds } from '@blip2/blip2';
import { loadFolder } from '@blip2/blip2/node';
import { createCaptioner } from '@blip2/captioner';
import { loadProcessor, promptBatch } from '@blip2/data-captions';
import { tensor } from '@blip2/nn';
import type { Precision, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { defaultCacheDir } from '@blip2/trainer';
import { writePictures } from './pictures';
import { digits, markdownTable, median, times } from './table';

export interface CaptionerWork {
  model: string;
  precision: Precision;
  /** in which pictures are written */
  dir: string;
  /** requests that are under way at a time */
  loads: readonly number[];
  /** requests at each load, for each that is under way */
  repeat: number;
  newTokens: number;
  say: (text: string) => void;
}

/** Makes the caption of a picture. */
type Side = (picture: string) => Promise<unknown>;

interface Measured {
  /** seconds of each request */
  latencies: number[];
  perSecond: number;
  /** ms */
  longestGap: number;
}

/** Returns Markdown: a table, and what batching gains. */
export async function captionerTable(work: CaptionerWork): Promise<string> {
  const { model, precision, loads, newTokens, say } = work;
  const pictures = await writePictures(work.dir, 8);
  const options = { min_new_tokens: newTokens, max_new_tokens: newTokens };
  const direct = await directSide(work, options);
  // both sides read every picture, although it was asked about before
  const shared = { model, precision, picture_cache_bytes: 0 };
  const captioner = await createCaptioner({ ...shared, max_batch: Math.max(...loads) });
  const sides: [string, Side][] = [
    ['direct', direct],
    ['captioner', (picture) => captioner.caption(picture, options)],
  ];
  const rows: string[][] = [];
  const speeds = new Map<string, number>();
  for (const load of loads)
    for (const [name, side] of sides) {
      say(`${name}, ${load} at a time`);
      await side(pictures[0]);
      const { latencies, perSecond, longestGap } = await measure(side, pictures, load, work.repeat);
      speeds.set(`${name} ${load}`, perSecond);
      const longest = Math.max(...latencies);
      const cells = [median(latencies), longest, perSecond].map(digits);
      rows.push([`${load} at a time: ${name}`, ...cells, longestGap.toFixed(0)]);
    }
  await captioner.close();
  const head = ['requests', 'median s', 'longest s', 'captions/s', 'longest wait of the thread, ms'];
  const most = Math.max(...loads);
  const gain = (name: string) => times(speeds.get(`${name} ${most}`)! / speeds.get(`${name} ${loads[0]}`)!);
  return [
    markdownTable(head, rows),
    `Captions per second with ${most} requests at a time, of those with ${loads[0]}: captioner ${gain('captioner')}, direct ${gain('direct')}.`,
  ].join('\n\n');
}

/** What a web app writes without a captioner. */
async function directSide({ model: dir, precision }: CaptionerWork, options: object): Promise<Side> {
  await useBackend('auto', { precision });
  const int8 = precision === 'int8' ? { cache_dir: defaultCacheDir() } : undefined;
  const model = await loadFolder(dir, { int8 });
  const processor = await loadProcessor(dir, textIds(model.config));
  const { height, width } = processor.imageSize;
  return async (picture) => {
    const pixel_values = tensor<Tensor4D>(await processor.pixels(picture), [1, 3, height, width]);
    const [ids] = await generate(model, { pixel_values }, promptBatch(processor, ['']), options);
    pixel_values.dispose();
    return processor.decode(ids);
  };
}

async function measure(side: Side, pictures: string[], load: number, repeat: number): Promise<Measured> {
  const latencies: number[] = [];
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const begin = performance.now();
  const client = async (number: number) => {
    for (let i = 0; i < repeat; i++) {
      const start = performance.now();
      await side(pictures[(number + i) % pictures.length]);
      latencies.push((performance.now() - start) / 1000);
    }
  };
  await Promise.all(Array.from({ length: load }, (_, i) => client(i)));
  const seconds = (performance.now() - begin) / 1000;
  // the timer that measures must run once more after a long step
  await new Promise((resolve) => setTimeout(resolve, 20));
  delay.disable();
  return { latencies, perSecond: latencies.length / seconds, longestGap: delay.max / 1e6 };
}
