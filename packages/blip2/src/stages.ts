/**
 * Outputs of the model that depend on the image alone and can therefore be computed once per image.
 * N image tokens of the vision tower, Dv its width, Q queries, Dt width of the text model.
 */
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import type { Blip2Config } from './config';
import { imageFeatures, queryEmbeds } from './forward';
import type { Blip2 } from './model';

export interface ImageStage {
  /** Its name in `ImageInput`. */
  name: 'image_features' | 'query_embeds';
  /** Parts of the model that it depends on, as prefixes of tensor names. */
  parts: readonly string[];
  /** Values of the configuration that it depends on. */
  settings: readonly unknown[];
  /** Of one image: [N, Dv] or [Q, Dt]. */
  shape: [rows: number, cols: number];
  /** pixel_values [B, 3, S, S] → [B, rows, cols], as in evaluation. */
  run(model: Blip2, pixel_values: Tensor4D): Tensor3D;
}

/** The stages from shallow to deep; each depends on all parts of the one before it. */
export function stagesOf(config: Blip2Config): readonly ImageStage[] {
  const { vision_config, qformer_config, num_query_tokens, text_config } = config;
  const { image_size, patch_size, hidden_size } = vision_config;
  const stages: ImageStage[] = [
    {
      name: 'image_features',
      parts: ['vision_model'],
      settings: [vision_config],
      shape: [(image_size / patch_size) ** 2 + 1, hidden_size],
      run: (model, pixel_values) => imageFeatures(model, pixel_values),
    },
    {
      name: 'query_embeds',
      parts: ['vision_model', 'qformer', 'query_tokens', 'language_projection'],
      settings: [vision_config, qformer_config, num_query_tokens],
      shape: [num_query_tokens, text_config.hidden_size],
      run: (model, pixel_values) => queryEmbeds(model, imageFeatures(model, pixel_values)),
    },
  ];
  return qformer_config.use_qformer_text_input ? stages.slice(0, 1) : stages; // queries that read a text depend on it
}
