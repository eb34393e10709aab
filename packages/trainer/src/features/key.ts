/** The key of cached features: everything they depend on besides the image itself. */
import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type { Blip2 } from '@blip2/blip2';
import { isBelow } from '@blip2/blip2';
import type { DecodeOptions } from '@blip2/data-captions';
import { normal, rngKey } from '@blip2/nn';
import { openWeights, readRegular } from '@blip2/weights/node';
import { probedStates } from './hidden-rows';
import type { CachedStage, LoadedStage } from './stage';
import { runStage } from './stage';

export interface FeatureKey {
  stage: CachedStage | 'hidden_states';
  /** hash of everything below; the name of the folder */
  id: string;
  made_of: {
    /** of the tensors that produce the features, as the checkpoint stores them */
    weights: string;
    /** of their part of config.json */
    config: string;
    /** of the preprocessor's file, how images are decoded, and the versions of what decodes and resizes them */
    preprocessing: string;
    /** of the features of a fixed noise picture, and a fixed text: it changes with precision, backend, instruction set and kernels */
    numerics: string;
  };
}

/** Hashes of the weights that a run's features depend on, which need not be read again for their keys. */
export interface WeightHashes {
  features?: string;
  hidden?: string;
}

/** The hashes for the keys of a stage, and of the hidden states before layer `depth` if that is above 0. */
export async function weightHashes(
  modelDir: string,
  stage: LoadedStage | undefined,
  { config }: Blip2,
  depth: number,
): Promise<WeightHashes> {
  if (!stage) return {};
  const features = await weightsHash(modelDir, inStage(stage));
  if (depth === 0) return { features };
  return { features, hidden: await weightsHash(modelDir, (name) => isBelow(config, name, depth)) };
}

const inStage =
  ({ parts }: LoadedStage) =>
  (name: string) =>
    parts.includes(name.split('.')[0]);

/** The key of features made from a checkpoint folder by a stage of the model loaded from it, on the backend in use. */
export async function featureKey(
  modelDir: string,
  stage: LoadedStage,
  decoding: DecodeOptions = {},
  weights?: string,
): Promise<FeatureKey> {
  const { name, settings, image_size } = stage;
  const [row] = await runStage(stage, [normal(rngKey(1), 3 * image_size ** 2)]);
  return keyOf(modelDir, decoding, {
    stage: name,
    settings,
    weights,
    needs: inStage(stage),
    probe: row,
  });
}

/** The key of the hidden states before layer `depth` of the text model. */
export async function hiddenKey(
  modelDir: string,
  model: Blip2,
  depth: number,
  decoding: DecodeOptions = {},
  weights?: string,
): Promise<FeatureKey> {
  const { config } = model;
  const { vision_config, qformer_config, num_query_tokens, text_config } = config;
  return keyOf(modelDir, decoding, {
    stage: 'hidden_states',
    settings: [vision_config, qformer_config, num_query_tokens, text_config, depth],
    weights,
    needs: (name) => isBelow(config, name, depth),
    probe: await probedStates(model, depth),
  });
}

/** What features are made by. */
interface Source {
  stage: FeatureKey['stage'];
  settings: readonly unknown[];
  /** the hash of the tensors that it needs, if it is known */
  weights?: string;
  needs(tensor: string): boolean;
  /** the features of noise */
  probe: Float32Array;
}

async function keyOf(
  modelDir: string,
  decoding: DecodeOptions,
  { stage, settings, weights, needs, probe }: Source,
): Promise<FeatureKey> {
  const made_of = {
    weights: weights ?? (await weightsHash(modelDir, needs)),
    config: sha256(JSON.stringify(settings)),
    preprocessing: await preprocessingHash(modelDir, decoding),
    numerics: sha256(new Uint8Array(probe.buffer, probe.byteOffset, probe.byteLength)),
  };
  const id = sha256(JSON.stringify({ format: 1, stage, ...made_of })).slice(0, 32);
  return { stage, id, made_of };
}

async function weightsHash(modelDir: string, needs: (tensor: string) => boolean): Promise<string> {
  const reader = await openWeights(modelDir);
  const hash = createHash('sha256');
  try {
    const names = [...reader.entries.keys()].filter(needs);
    for (const name of names.sort()) {
      const { dtype, shape } = reader.entries.get(name)!;
      hash.update(`${name} ${dtype} ${shape}\n`).update(await reader.readRaw(name));
    }
  } finally {
    await reader.close();
  }
  return hash.digest('hex');
}

async function preprocessingHash(modelDir: string, decoding: DecodeOptions): Promise<string> {
  const { alpha = 'white', image_orientation = 'exif' } = decoding;
  const hash = createHash('sha256').update(decoderVersions() + alpha + image_orientation);
  for (const name of ['preprocessor_config.json', 'processor_config.json']) {
    const bytes = await readRegular(join(modelDir, name)).catch(() => undefined);
    hash.update(`\n${name} ${bytes?.length ?? 'none'}\n`).update(bytes ?? '');
  }
  return hash.digest('hex');
}

function decoderVersions(): string {
  const owner = createRequire(createRequire(import.meta.url).resolve('@blip2/data-captions/package.json'));
  const { version } = owner('./package.json') as { version: string };
  const { versions } = owner('sharp') as { versions: Record<string, string> };
  return JSON.stringify([version, Object.entries(versions).sort()]);
}

function sha256(data: string | Uint8Array): string {
  return createHash('sha256').update(data).digest('hex');
}
