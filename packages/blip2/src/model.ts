/** The whole model as a tree of parameters. Reference: `Blip2ForConditionalGeneration`, `InstructBlipForConditionalGeneration` of transformers. */
import type { Linear, Tensor3D } from '@blip2/nn';
import { qformerWeights } from '@blip2/qformer';
import type { InstructedQFormer, QFormerModel } from '@blip2/qformer';
import { visionWeights } from '@blip2/vision-encoder';
import type { VisionModel } from '@blip2/vision-encoder';
import type { WeightTable } from '@blip2/weights';
import type { Blip2Config } from './config';
import { LANGUAGE_MODEL, languageModel } from './language-model';
import type { TextModelParams } from './language-model';
import type { OutputLayer } from './output-layer';

/** Field names are the checkpoint's; flattened: `language_model.model.decoder.layers.0.self_attn.q_proj.weight`. */
export interface Blip2Params {
  query_tokens: Tensor3D; // [1, Q, D]
  vision_model: VisionModel;
  qformer: QFormerModel | InstructedQFormer;
  language_projection: Linear; // D → the text model's hidden size
  language_model: TextModelParams;
}

export interface Blip2 {
  config: Blip2Config;
  params: Blip2Params;
  /** With rounded weights: what texts are written with (output-layer.ts). */
  output_layer?: OutputLayer;
}

/** Name and shape of every tensor of a checkpoint, in its order; a tied lm_head is not listed. */
export function blip2Weights(cfg: Blip2Config): WeightTable {
  const { hidden_size } = cfg.qformer_config;
  return [
    ['query_tokens', [1, cfg.num_query_tokens, hidden_size]],
    ...visionWeights(cfg.vision_config, 'vision_model.'),
    ...qformerWeights(cfg.qformer_config, 'qformer.'),
    ['language_projection.weight', [cfg.text_config.hidden_size, hidden_size]],
    ['language_projection.bias', [cfg.text_config.hidden_size]],
    ...languageModel(cfg).weights(cfg.text_config, LANGUAGE_MODEL),
  ];
}
