/** Our side of the comparison: backend, model, and the figures of every measurement. */
import { registerWebGpu } from '@blip2/backend-webgpu';
import type { BufferBytes } from '@blip2/backend-webgpu';
import { weightFiles } from '@blip2/backend-webgpu/node';
import { textIds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { startBackend, tensor, weightBits } from '@blip2/nn';
import type { BackendName, Precision, Tensor4D } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { defaultCacheDir } from '@blip2/trainer';
import { backend as active } from '@tensorflow/tfjs-core';
import { idleGpu } from './idle-gpu';
import { picturesIn } from './work';
import type { WorkBatch } from './work';

export interface SideOptions {
  model: string;
  work: string;
  threads: number;
  precision: Precision;
  backend: SideBackend;
}

/** `counting`: webgpu on a GPU that computes nothing, to count its buffers. */
export type SideBackend = BackendName | 'auto' | 'counting';

/** The JSON line that both sides print. */
export interface SideReport {
  side: 'ours' | 'pytorch';
  threads: number;
  precision: Precision;
  /** PyTorch only. */
  attention?: string;
  /** From the start of the process until the first step can begin. */
  load_seconds: number;
  /** Largest resident memory until the first step. */
  loaded_rss_bytes: number;
  /** Each step, or each call of generate; the first one warms up. */
  seconds: number[];
  /** Largest resident memory of the process, including memory-mapped files. */
  peak_rss_bytes: number;
  /** Most bytes of the GPU in use, if it computes. */
  gpu_bytes?: number;
  /** The same while the model is loaded, while features are computed, and in the steps. */
  gpu_phases?: readonly [loading: number, features: number, steps: number];
}

/** Starts the backend and loads the model; in int8, `keep` has the names of what trains. Call it before anything else loads the backend, which reads the thread count then. */
export async function open(
  o: SideOptions,
  keep?: (name: string) => boolean,
): Promise<{ model: Blip2; gpuPeak?: () => number }> {
  process.env.BLIP2_NUM_THREADS = String(o.threads);
  const gpuPeak = await startSide(o);
  const text_bits = weightBits(o.precision);
  const int8 = text_bits && { cache_dir: defaultCacheDir(), keep, text_bits, onMessage: console.error };
  return { model: await loadFolder(o.model, { int8 }), gpuPeak };
}

/** Starts the backend. On a GPU, a function that returns the most bytes of its buffers since it was called before. */
async function startSide({ backend, precision }: SideOptions): Promise<(() => number) | undefined> {
  const idle = { name: 'webgpu', load: () => registerWebGpu({ gpu: idleGpu() }, weightFiles) } as const;
  const { name } = await (backend === 'counting'
    ? startBackend(idle, { precision })
    : useBackend(backend, { precision }));
  if (name !== 'webgpu') return undefined;
  const { bufferBytes } = active() as { bufferBytes?: BufferBytes };
  return () => {
    const { peak, now } = bufferBytes!;
    bufferBytes!.peak = now;
    return peak;
  };
}

/** Seconds since the process began. */
export const sinceStart = () => performance.now() / 1000;

export const peakMemory = () => process.resourceUsage().maxRSS * 1024;

/** Pixels of a batch [P, 3, S, S]; without stored pixels, image files are decoded as in training. */
export class Pictures {
  private processor: Promise<Processor> | undefined;

  constructor(private readonly modelDir: string) {}

  async of(batch: WorkBatch): Promise<Tensor4D> {
    const shape = [picturesIn(batch), 3, batch.side, batch.side];
    return tensor(batch.pixel_values ?? (await this.decoded(batch.images!)), shape) as Tensor4D;
  }

  private async decoded(images: string[]): Promise<Float32Array> {
    this.processor ??= loadConfig(this.modelDir).then((config) =>
      loadProcessor(this.modelDir, textIds(config)),
    );
    const processor = await this.processor;
    const rows = await Promise.all(images.map((image) => processor.pixels(image)));
    const out = new Float32Array(rows.length * rows[0].length);
    rows.forEach((row, i) => out.set(row, i * row.length));
    return out;
  }
}
