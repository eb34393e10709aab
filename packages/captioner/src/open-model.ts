/** Loads a model with its adapters, in the worker. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { adapterBase, textIds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { loadFolder, readSmoothing } from '@blip2/blip2/node';
import { loadProcessor } from '@blip2/data-captions';
import type { Processor } from '@blip2/data-captions';
import { weightBits } from '@blip2/nn';
import type { TextConfig } from '@blip2/nn';
import { useBackend } from '@blip2/nn/node';
import { applyAdapter } from '@blip2/peft-lora';
import { loadAdapter } from '@blip2/peft-lora/node';
import { resolveModel } from '@blip2/weights/node';
import type { WorkerOptions } from './messages';
import type { CaptionerInfo } from './types';

/** The name of the model without an adapter. */
export const BASE = 'base';
/** The name of the adapter that requests have by default. */
export const DEFAULT = 'default';

export interface OpenModel {
  info: CaptionerInfo;
  /** By the names of their adapters, the default first. They share the tensors of the base. */
  models: ReadonlyMap<string, Blip2>;
  processor: Processor;
}

/** @throws Error that names the folder or option that is wrong */
export async function openModel(o: WorkerOptions): Promise<OpenModel> {
  const dir = resolveModel(o.model);
  const folders = namedFolders(o);
  if (o.backend === 'tensorflow')
    throw new Error(
      'backend: expected native, webgpu, wasm, cpu or auto, found tensorflow, which crashes a process whose thread has loaded it',
    );
  const { name: backend, precision } = await useBackend(o.backend ?? 'auto', {
    precision: o.precision ?? 'auto',
  });
  const bits = weightBits(precision);
  const int8 = bits && {
    ...(await roundingOf([...folders.values()][0] ?? dir)),
    text_bits: bits,
    cache_dir: o.cache_dir,
  };
  const base = await loadFolder(dir, { int8 });
  const { alpha, image_orientation, max_pixels } = o;
  const processor = await loadProcessor(dir, textIds(base.config), { alpha, image_orientation, max_pixels });
  const models = new Map<string, Blip2>();
  for (const [name, folder] of folders) models.set(name, await withAdapter(base, name, folder));
  models.set(BASE, base);
  const { max_position_embeddings }: TextConfig = base.config.text_config;
  const info = {
    model: dir,
    backend,
    precision,
    adapters: [...models.keys()],
    max_positions: max_position_embeddings,
  };
  return { info, models, processor };
}

/** @throws Error for a name that is taken */
function namedFolders({ adapter, adapters = {} }: WorkerOptions): Map<string, string> {
  const named = new Map(Object.entries(adapters));
  const taken = [BASE, ...(adapter === undefined ? [] : [DEFAULT])].find((name) => named.has(name));
  if (taken !== undefined)
    throw new Error(
      `adapters: the name "${taken}" stands for ${taken === BASE ? 'the model without an adapter' : '`adapter`'}; choose another`,
    );
  return new Map([...(adapter === undefined ? [] : [[DEFAULT, adapter] as const]), ...named]);
}

async function withAdapter(base: Blip2, name: string, folder: string): Promise<Blip2> {
  try {
    const adapter = await loadAdapter(resolveModel(folder));
    return { ...base, params: applyAdapter(base.params, adapter, { ties: adapterBase(base.config).ties }) };
  } catch (error) {
    throw new Error(`adapter "${name}" (${folder}): ${(error as Error).message}`, { cause: error });
  }
}

/** The factors that a run in int8 left beside its adapter or model: its result was trained with weights that were rounded so. */
async function roundingOf(folder: string) {
  const file = join(dirname(resolve(folder)), 'smoothing.safetensors');
  if (!existsSync(file)) return {};
  const smoothing = await readSmoothing(file);
  const trained = new Set(smoothing.trained);
  return { smoothing, keep: (name: string) => trained.has(name) };
}
