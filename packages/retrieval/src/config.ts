/** config.json of BLIP-2's models for retrieval. Reference: `Blip2Config` of transformers 5 with a Q-Former that reads texts. */
import { ModelError } from '@blip2/blip2';
import { configFields } from '@blip2/nn';
import { parseQFormerConfig, parseWordsConfig } from '@blip2/qformer';
import type { QFormerConfig } from '@blip2/qformer';
import { parseVisionConfig } from '@blip2/vision-encoder';
import type { VisionConfig } from '@blip2/vision-encoder';
import { isRecord, show } from '@blip2/weights';

/** The models, by the class of transformers that saved them, and what each can embed. */
const ARCHITECTURES = {
  Blip2ForImageTextRetrieval: { images: true, texts: true, matching: true },
  Blip2VisionModelWithProjection: { images: true, texts: false, matching: false },
  Blip2TextModelWithProjection: { images: false, texts: true, matching: false },
} as const;

export interface RetrievalConfig {
  architecture: keyof typeof ARCHITECTURES;
  /** What the checkpoint has the weights for. */
  parts: { images: boolean; texts: boolean; matching: boolean };
  vision_config: VisionConfig;
  qformer_config: QFormerConfig;
  /** Q */
  num_query_tokens: number;
  /** Width of the embeddings of images and texts. */
  image_text_hidden_size: number;
  /** Of the Q-Former's own words. */
  vocab_size: number;
  /** Most tokens of a text. */
  max_position_embeddings: number;
  /** The JSON as it was read: `saveRetrievalModel` writes it back. */
  raw: Record<string, unknown>;
}

/** Whether a parsed config.json is that of a model for retrieval. */
export const isRetrievalConfig = (json: unknown): boolean => architectureOf(json) !== undefined;

function architectureOf(json: unknown): RetrievalConfig['architecture'] | undefined {
  const names = isRecord(json) && Array.isArray(json.architectures) ? (json.architectures as unknown[]) : [];
  return names.find((name): name is RetrievalConfig['architecture'] =>
    Object.hasOwn(ARCHITECTURES, String(name)),
  );
}

/** Reads the parsed config.json. @throws ModelError that names the field and `where`, the file */
export function parseRetrievalConfig(json: unknown, where = 'config.json'): RetrievalConfig {
  const architecture = architectureOf(json);
  if (!architecture || !isRecord(json))
    throw new ModelError(
      `${where}: architectures: expected one of ${Object.keys(ARCHITECTURES).join(', ')}, found ` +
        `${show(isRecord(json) ? json.architectures : json)}; use a checkpoint such as Salesforce/blip2-itm-vit-g`,
    );
  try {
    const { count } = configFields(json, where);
    const vision_config = parseVisionConfig(json.vision_config ?? {}, `${where}: vision_config`);
    const at = `${where}: qformer_config`;
    const qformer = json.qformer_config ?? {};
    const qformer_config = parseQFormerConfig(qformer, at, vision_config.hidden_size);
    if (!qformer_config.use_qformer_text_input)
      throw new ModelError(`${at}.use_qformer_text_input: expected true, found false`);
    return {
      architecture,
      parts: ARCHITECTURES[architecture],
      vision_config,
      qformer_config,
      num_query_tokens: count('num_query_tokens', 32),
      image_text_hidden_size: count('image_text_hidden_size', 256),
      ...parseWordsConfig(qformer, at),
      raw: json,
    };
  } catch (error) {
    throw error instanceof ModelError ? error : new ModelError((error as Error).message, { cause: error });
  }
}
