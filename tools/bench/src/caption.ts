/** Our captions for the images of a work file. */
import { generate } from '@blip2/blip2';
import { dispose } from '@blip2/nn';
import { open, peakMemory, Pictures, sinceStart } from './side';
import type { SideOptions, SideReport } from './side';
import { readWork } from './work';

export interface CaptionOptions extends SideOptions {
  beams: number;
  /** Exact length: no text ends earlier, so that both sides do the same work. */
  newTokens: number;
  repeat: number;
}

export interface CaptionReport extends SideReport {
  beams: number;
  batch: number;
  /** Of the last call. */
  ids: number[][];
}

/** Loads the model, captions `repeat` times and reports the times. */
export async function runCaptions(o: CaptionOptions): Promise<CaptionReport> {
  const { model, gpuPeak } = await open(o);
  const batches = await readWork(o.work);
  const pictures = new Pictures(o.model);
  const [load_seconds, loaded_rss_bytes] = [sinceStart(), peakMemory()];
  const length = { max_new_tokens: o.newTokens, min_new_tokens: o.newTokens };
  const seconds: number[] = [];
  let ids: number[][] = [];
  for (let i = 0; i < o.repeat; i++) {
    const begin = performance.now();
    const batch = batches[i % batches.length];
    const pixel_values = await pictures.of(batch);
    ids = await generate(model, { pixel_values }, batch, { ...length, num_beams: o.beams });
    dispose(pixel_values);
    seconds.push((performance.now() - begin) / 1000);
  }
  return {
    ...{ side: 'ours', threads: o.threads, precision: o.precision, beams: o.beams },
    ...{ batch: batches[0].shape[0], load_seconds, loaded_rss_bytes, seconds, ids },
    peak_rss_bytes: peakMemory(),
    ...(gpuPeak && { gpu_bytes: gpuPeak() }),
  };
}
