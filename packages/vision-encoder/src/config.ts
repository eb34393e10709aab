import { checkHeads, configFields } from '@blip2/nn';

/** The fields of `vision_config` in config.json that the encoder uses, under the same names. */
export interface VisionConfig {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  /** Side of the square input in pixels, a multiple of `patch_size`. */
  image_size: number;
  patch_size: number;
  hidden_act: 'gelu';
  layer_norm_eps: number;
  attention_dropout: number;
  qkv_bias: boolean;
}

/**
 * Reads `vision_config`. Missing fields get the defaults of transformers' `Blip2VisionConfig`; other keys are ignored.
 * @throws Error with the field (as `where.field`), what was expected and what was found
 */
export function parseVisionConfig(json: unknown, where = 'vision_config'): VisionConfig {
  const { count, layers, number, rate, flag, text, read } = configFields(json, where);
  const side = (name: string, fallback: number) =>
    read(name, (v = fallback) => squareSide(v), 'a positive integer or a square [n, n]');
  const cfg: VisionConfig = {
    hidden_size: count('hidden_size', 1408),
    intermediate_size: count('intermediate_size', 6144),
    num_hidden_layers: layers('num_hidden_layers', 39),
    num_attention_heads: count('num_attention_heads', 16),
    image_size: side('image_size', 224),
    patch_size: side('patch_size', 14),
    hidden_act: text('hidden_act', ['gelu']),
    layer_norm_eps: number('layer_norm_eps', 1e-6, (v) => v > 0, 'a number above 0'),
    attention_dropout: rate('attention_dropout', 0),
    qkv_bias: flag('qkv_bias', true),
  };
  checkHeads(cfg, where);
  if (cfg.image_size % cfg.patch_size !== 0)
    throw new Error(
      `${where}.image_size: expected a multiple of patch_size (${cfg.patch_size}), found ${cfg.image_size}`,
    );
  return cfg;
}

/** Over ten times BLIP-2's usual size. */
const MOST_SIDE = 4096;

/** A square size: n, or transformers' [n, n]. */
function squareSide(value: unknown): number | undefined {
  const [height, width] = Array.isArray(value) && value.length === 2 ? (value as unknown[]) : [value, value];
  return height === width &&
    Number.isInteger(height) &&
    (height as number) > 0 &&
    (height as number) <= MOST_SIDE
    ? (height as number)
    : undefined;
}
