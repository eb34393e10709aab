/** BLIP-2's and InstructBLIP's config.json. Reference: `Blip2Config` and `InstructBlipConfig` of transformers 5. Each part is parsed by the package of that part. */
import { parseQFormerConfig, parseWordsConfig } from '@blip2/qformer';
import type { QFormerConfig } from '@blip2/qformer';
import { parseVisionConfig } from '@blip2/vision-encoder';
import type { VisionConfig } from '@blip2/vision-encoder';
import { isRecord, show } from '@blip2/weights';
import { parseTextConfig } from './language-model';
import { unsupportedQuantisation } from './quantisation';
import type { TextModelConfig } from './language-model';

export interface Blip2Config {
  model_type: keyof typeof CLASSES;
  vision_config: VisionConfig;
  qformer_config: QFormerConfig;
  text_config: TextModelConfig;
  num_query_tokens: number;
  /** Id of the placeholder `<image>`; undefined if the checkpoint is older than the placeholder. */
  image_token_index: number | undefined;
  /** The JSON as it was read, with unknown keys: `saveModel` writes it back. */
  raw: Record<string, unknown>;
}

/** The models, by model_type, and transformers' names of their class and parts. */
export const CLASSES = {
  'blip-2': {
    architecture: 'Blip2ForConditionalGeneration',
    ...{ vision: 'blip_2_vision_model', qformer: 'blip_2_qformer' },
  },
  instructblip: {
    architecture: 'InstructBlipForConditionalGeneration',
    ...{ vision: 'instructblip_vision_model', qformer: 'instructblip_qformer' },
  },
} as const;

/** More would not fit into any text model, and a hostile config.json must not exhaust memory. */
const MOST_QUERIES = 4096;

/** A model, its configuration or its input does not fit BLIP-2; the message has what was expected and what was found. */
export class ModelError extends Error {
  override name = 'ModelError';
}

/**
 * Reads the parsed config.json of a BLIP-2 checkpoint; absent fields take transformers' defaults. `where` names the file in
 * errors.
 * @throws ModelError
 */
export function parseConfig(json: unknown, where = 'config.json'): Blip2Config {
  const raw = record(json, where);
  const { model_type = 'blip-2' } = raw;
  if (model_type !== 'blip-2' && model_type !== 'instructblip')
    throw new ModelError(
      `${where}: model_type: expected "blip-2" or "instructblip", found ${show(model_type)}${otherModel(model_type)}; ` +
        'use a Blip2ForConditionalGeneration checkpoint, such as Salesforce/blip2-opt-2.7b, or an InstructBlipForConditionalGeneration ' +
        'checkpoint, such as Salesforce/instructblip-flan-t5-xl',
    );
  const method = unsupportedQuantisation(raw);
  if (method)
    throw new ModelError(
      `${where}: the checkpoint is quantised: ${method}, which is not supported; use the original in float32, float16 or ` +
        'bfloat16, or quantised by bitsandbytes, or save the model unquantised in Python (model.dequantize(), save_pretrained)',
    );
  try {
    const vision_config = parseVisionConfig(raw.vision_config ?? {}, `${where}: vision_config`);
    const { hidden_size } = vision_config;
    const at = `${where}: qformer_config`;
    const text = `${where}: text_config`;
    const own = parseQFormerConfig(raw.qformer_config ?? {}, at, hidden_size);
    const qformer_config = model_type === 'instructblip' ? reading(own, raw, at) : own;
    if (own.use_qformer_text_input && model_type === 'blip-2')
      throw new ModelError(
        `${at}.use_qformer_text_input: expected false, found true; the Q-Former of this checkpoint reads text (image-text matching); ` +
          'use a Blip2ForConditionalGeneration checkpoint. A Blip2ForImageTextRetrieval checkpoint works with ' +
          '`blip2 match`, `embed`, `evaluate` and `fit`',
      );
    return {
      model_type,
      vision_config,
      qformer_config,
      text_config: parseTextConfig(record(raw.text_config ?? {}, text), text),
      num_query_tokens: integer(raw.num_query_tokens ?? 32, [1, MOST_QUERIES], `${where}: num_query_tokens`),
      image_token_index: imageToken(raw, where),
      raw,
    };
  } catch (error) {
    throw error instanceof ModelError ? error : new ModelError((error as Error).message, { cause: error });
  }
}

/** InstructBLIP's Q-Former always reads the instruction, and has word embeddings. */
const reading = (config: QFormerConfig, { qformer_config: json }: Record<string, unknown>, at: string) => ({
  ...config,
  use_qformer_text_input: true,
  words: parseWordsConfig(json ?? {}, at),
});

/** What checkpoints of other kinds are that people take for BLIP-2. */
const OTHER_MODELS: Readonly<Record<string, string>> = {
  blip: 'the older BLIP',
  instructblipvideo: 'InstructBLIP for videos',
  blip_2_vision_model: "BLIP-2's vision tower alone",
  blip_2_qformer: "BLIP-2's Q-Former alone",
  opt: 'a language model alone',
  t5: 'a language model alone',
};

function otherModel(model_type: unknown): string {
  const name = typeof model_type === 'string' && Object.hasOwn(OTHER_MODELS, model_type) ? model_type : '';
  return name === '' ? '' : `, ${OTHER_MODELS[name]}`;
}

/** transformers reads both names; older checkpoints have neither. */
function imageToken(raw: Record<string, unknown>, where: string): number | undefined {
  const id = raw.image_token_index ?? raw.image_token_id ?? undefined;
  return id === undefined ? undefined : integer(id, [0, 0x7fffffff], `${where}: image_token_index`);
}

function integer(value: unknown, [least, most]: [number, number], where: string): number {
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most)
    return value as number;
  throw new ModelError(`${where}: expected a whole number from ${least} to ${most}, found ${show(value)}`);
}

function record(value: unknown, where: string): Record<string, unknown> {
  if (isRecord(value)) return value;
  throw new ModelError(`${where}: expected a JSON object, found ${show(value)}`);
}
