/** Loads the model, adapter and processor of a command. */
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { adapterBase, isOwnQuantised, textIds } from '@blip2/blip2';
import { loadConfig, loadFolder } from '@blip2/blip2/node';
import type { Int8FileOptions } from '@blip2/blip2/node';
import type { Blip2 } from '@blip2/blip2';
import { loadProcessor } from '@blip2/data-captions';
import type { DecodeOptions, Processor, Task, TextOptions, TextRules } from '@blip2/data-captions';
import type { BackendReport, Precision as ComputePrecision } from '@blip2/nn';
import { weightBits } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { AdapterError, applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import type { Adapter } from '@blip2/peft-lora';
import { adapterFolder, defaultCacheDir, exactLine, smoothingOfRun, textRules } from '@blip2/trainer';
import { resolveModel } from '@blip2/weights/node';
import type { Backend, ImageFlags, Precision } from './options';
import { decodingOf } from './options';
import type { Ui } from './ui';

export interface ModelFlags extends ImageFlags {
  /** see `withBase` */
  model?: string;
  adapter?: string;
  backend: Backend;
  /** float32 by default */
  precision?: Precision;
}

export interface Opened {
  /** with the adapter, if any */
  model: Blip2;
  /** without the adapter */
  base: Blip2;
  processor: Processor;
  backend: string;
  precision: ComputePrecision;
  /** the folders they were loaded from */
  folders: { model: string; adapter?: string };
}

/** Starts the backend and loads a model folder, with an adapter if --adapter is present. */
export async function openModel(flags: ModelFlags & { model: string }, ui: Ui): Promise<Opened> {
  const dir = modelDir(flags.model);
  const folder = flags.adapter === undefined ? undefined : adapterFolder(flags.adapter);
  const adapter = folder === undefined ? undefined : await loadAdapter(folder);
  const processor = await openProcessor(flags.model, decodingOf(flags));
  const { name: backend, precision } = await startBackend(dir, flags);
  const bits = weightBits(precision);
  const int8 = bits && { ...(await int8Options(folder ?? dir, ui)), text_bits: bits };
  const base = await loadFolder(dir, {
    onProgress: ({ loaded, total }) => {
      if (total > 1e8)
        ui.progress('load', `loading ${((100 * loaded) / total).toFixed(0)} %`, loaded === total);
    },
    int8,
  });
  const model = adapter ? { ...base, params: adapted(base, adapter, flags.adapter!) } : base;
  return { model, base, processor, backend, precision, folders: { model: dir, adapter: adapter?.where } };
}

/** `auto` multiplies INT4 weights of this program in 8 bits on native: they were made for that. */
async function startBackend(dir: string, { backend, precision }: ModelFlags): Promise<BackendReport> {
  const found = await useBackend(backend, { precision });
  const eight =
    found.name === 'native' && precision === 'auto' && isOwnQuantised((await loadConfig(dir)).raw);
  return eight ? useBackend('native', { precision: 'int8' }) : found;
}

/**
 * Rounded as in the run that the adapter or model lies in, if it lies in one. Rounded weights are kept beside the features of `fit`.
 */
async function int8Options(folder: string, ui: Ui): Promise<Int8FileOptions> {
  const smoothing = await smoothingOfRun(folder);
  const exact = smoothing && exactLine(smoothing);
  ui.log(
    smoothing
      ? `int8 weights: rounded as in the run ${dirname(folder)}`
      : 'int8 weights: without smoothing, which is measured by a run and found in its folder',
  );
  if (exact) ui.log(exact);
  const trained = new Set(smoothing?.trained);
  return {
    smoothing,
    keep: (name) => trained.has(name),
    cache_dir: defaultCacheDir(),
    onMessage: (text) => ui.log(text),
    onProgress: (done, total) =>
      ui.progress('int8', `rounding weights to int8: ${done} of ${total}`, done === total),
  };
}

/** The tokenizer and image preprocessing of a model. */
export async function openProcessor(model: string, decoding: DecodeOptions = {}): Promise<Processor> {
  const dir = modelDir(model);
  return loadProcessor(dir, textIds(await loadConfig(dir)), decoding);
}

/** What texts are used for with this model, and the room that it has for them. */
export async function openTexts(
  model: string,
  texts: Pick<TextOptions, 'prompt' | 'max_text_length'> & { task?: Task },
): Promise<TextRules> {
  const config = await loadConfig(modelDir(model));
  const rules = textRules({ task: 'caption', ...texts }, await openProcessor(model), config);
  return { ...rules, task: texts.task };
}

/** Applies an adapter to the parameters. @throws AdapterError that names the adapter's folder */
export function adapted(base: Blip2, adapter: Adapter, folder: string): Blip2['params'] {
  try {
    return applyAdapter(base.params, adapter, { ties: adapterBase(base.config).ties });
  } catch (error) {
    if (!(error instanceof AdapterError) || error.message.includes(folder)) throw error;
    throw new AdapterError(`${folder}: ${error.message}`, error.problems, { cause: error });
  }
}

/**
 * The model's folder: a local path, or the cache folder of a Hub name that `blip2 pull` downloaded.
 * @throws Error if the folder contains no model, or the name is not in the cache
 */
export function modelDir(model: string): string {
  const dir = resolveModel(model);
  if (existsSync(join(dir, 'config.json'))) return dir;
  if (existsSync(join(dir, 'adapter_config.json')))
    throw new Error(`${dir}: this is an adapter; pass it as --adapter, and its base model as --model`);
  if (existsSync(join(dir, 'adapter', 'adapter_config.json')))
    throw new Error(
      `${dir}: this is a run folder; pass its adapter as --adapter ${join(model, 'adapter')}, and the base ` +
        'model as --model',
    );
  if (existsSync(join(dir, 'model', 'config.json')))
    throw new Error(`${dir}: this is a run folder; expected its model: --model ${join(model, 'model')}`);
  if (existsSync(dir))
    throw new Error(
      `${dir}: expected a model folder with config.json, model.safetensors and tokenizer.json, found no config.json`,
    );
  throw new Error(`${dir}: expected a model folder, found none`);
}
