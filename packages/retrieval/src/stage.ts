/** What of the model depends on the image alone, and can be computed once per image. N image tokens, E their width. */
import type { Tensor3D, Tensor4D } from '@blip2/nn';
import type { RetrievalConfig } from './config';
import { imageTokens } from './model';
import type { RetrievalModel } from './model';

/** The vision tower, under the same name and with the same fields as in `stagesOf` of @blip2/blip2: its outputs are the same, too. */
export function imageStage({ vision_config }: RetrievalConfig) {
  const { image_size, patch_size, hidden_size } = vision_config;
  return {
    name: 'image_features' as const,
    parts: ['vision_model'],
    settings: [vision_config] as readonly unknown[],
    shape: [(image_size / patch_size) ** 2 + 1, hidden_size] as [rows: number, cols: number],
    image_size,
    run: (model: RetrievalModel, pixel_values: Tensor4D): Tensor3D => imageTokens(model, pixel_values),
  };
}
