/** BLIP-2's config.json. Reference: `Blip2Config` of transformers 5; each part is read by the package that runs it. */
import { parseOptConfig, type OptConfig } from '@blip2/opt-decoder';
import { parseQFormerConfig, type QFormerConfig } from '@blip2/qformer';
import { parseVisionConfig, type VisionConfig } from '@blip2/vision-encoder';

export interface Blip2Config {
  vision_config: VisionConfig;
  qformer_config: QFormerConfig;
  text_config: OptConfig;
  num_query_tokens: number;
  /** Id of the placeholder `<image>`; undefined where the checkpoint is older than the placeholder. */
  image_token_index: number | undefined;
  /** The JSON as it was read, with the keys nobody here knows: `saveModel` writes it back. */
  raw: Record<string, unknown>;
}

/** A model, its configuration or its input is not what BLIP-2 needs; the message says what was expected and what came. */
export class ModelError extends Error {
  override name = 'ModelError';
}

/**
 * Reads the parsed config.json of a BLIP-2 checkpoint with OPT as its language model; absent fields take transformers'
 * defaults. `where` names the file in errors. Throws `ModelError`.
 */
export function parseConfig(json: unknown, where = 'config.json'): Blip2Config {
  const raw = record(json, where);
  const { model_type = 'blip-2', text_config } = raw;
  if (model_type !== 'blip-2')
    throw new ModelError(`${where}: model_type: expected "blip-2", got ${show(model_type)}`);
  refuseOtherLanguageModels(record(text_config ?? {}, `${where}: text_config`), `${where}: text_config`);
  try {
    const vision_config = parseVisionConfig(raw.vision_config ?? {}, `${where}: vision_config`);
    const { hidden_size } = vision_config;
    const at = `${where}: qformer_config`;
    return {
      vision_config,
      qformer_config: parseQFormerConfig(raw.qformer_config ?? {}, at, hidden_size),
      text_config: parseOptConfig(text_config ?? {}, `${where}: text_config`),
      num_query_tokens: integer(raw.num_query_tokens ?? 32, 1, `${where}: num_query_tokens`),
      image_token_index: imageToken(raw, where),
      raw,
    };
  } catch (error) {
    throw error instanceof ModelError ? error : new ModelError((error as Error).message, { cause: error });
  }
}

function refuseOtherLanguageModels({ model_type = 'opt' }: Record<string, unknown>, where: string): void {
  if (model_type === 'opt') return;
  const why = model_type === 't5' ? 'Flan-T5 checkpoints are not supported' : 'no other is supported';
  throw new ModelError(
    `${where}: model_type: expected "opt", got ${show(model_type)}: ${why}; use an OPT checkpoint, such as Salesforce/blip2-opt-2.7b`,
  );
}

/** transformers reads both names; older checkpoints have neither. */
function imageToken(raw: Record<string, unknown>, where: string): number | undefined {
  const id = raw.image_token_index ?? raw.image_token_id ?? undefined;
  return id === undefined ? undefined : integer(id, 0, `${where}: image_token_index`);
}

function integer(value: unknown, least: number, where: string): number {
  if (Number.isInteger(value) && (value as number) >= least) return value as number;
  throw new ModelError(`${where}: expected a whole number of at least ${least}, got ${show(value)}`);
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value))
    return value as Record<string, unknown>;
  throw new ModelError(`${where}: expected a JSON object, got ${show(value)}`);
}

const show = (value: unknown) => (JSON.stringify(value) ?? String(value)).slice(0, 80);
