/** Fields of config.json's `vision_config` that the encoder reads, under their names there. */
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
 * Reads `vision_config`; an absent field takes the default of transformers' `Blip2VisionConfig`, other keys are ignored.
 * Throws an Error that names the field (as `where.field`), what was expected and what came.
 */
export function parseVisionConfig(json: unknown, where = 'vision_config'): VisionConfig {
  const { count, number, flag, text, side } = fields(json, where);
  const cfg: VisionConfig = {
    hidden_size: count('hidden_size', 1408),
    intermediate_size: count('intermediate_size', 6144),
    num_hidden_layers: count('num_hidden_layers', 39),
    num_attention_heads: count('num_attention_heads', 16),
    image_size: side('image_size', 224),
    patch_size: side('patch_size', 14),
    hidden_act: text('hidden_act', ['gelu']),
    layer_norm_eps: number('layer_norm_eps', 1e-6, (v) => v > 0, 'a number above 0'),
    attention_dropout: number('attention_dropout', 0, (v) => v >= 0 && v < 1, 'a rate in [0, 1)'),
    qkv_bias: flag('qkv_bias', true),
  };
  if (cfg.hidden_size % cfg.num_attention_heads !== 0)
    throw new Error(
      `${where}.hidden_size: expected a multiple of num_attention_heads (${cfg.num_attention_heads}), got ${cfg.hidden_size}`,
    );
  if (cfg.image_size % cfg.patch_size !== 0)
    throw new Error(
      `${where}.image_size: expected a multiple of patch_size (${cfg.patch_size}), got ${cfg.image_size}`,
    );
  return cfg;
}

/** Typed readers of one JSON record: null and absent mean the default. */
function fields(json: unknown, where: string) {
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw new Error(`${where}: expected an object, got ${JSON.stringify(json)}`);
  const record = json as Record<string, unknown>;
  const fail = (name: string, expected: string): never => {
    throw new Error(`${where}.${name}: expected ${expected}, got ${JSON.stringify(record[name])}`);
  };
  const number = (name: string, fallback: number, ok: (v: number) => boolean, expected: string): number => {
    const v = record[name] ?? fallback;
    return typeof v === 'number' && ok(v) ? v : fail(name, expected);
  };
  const count = (name: string, fallback: number) =>
    number(name, fallback, (v) => Number.isInteger(v) && v > 0, 'a positive integer');
  return {
    number,
    count,
    flag: (name: string, fallback: boolean): boolean => {
      const v = record[name] ?? fallback;
      return typeof v === 'boolean' ? v : fail(name, 'true or false');
    },
    text: <T extends string>(name: string, allowed: readonly [T, ...T[]]): T => {
      const v = record[name] ?? allowed[0];
      return allowed.find((a) => a === v) ?? fail(name, allowed.map((a) => `"${a}"`).join(' or '));
    },
    /** A square size: n, or transformers' [n, n]. */
    side: (name: string, fallback: number): number => {
      const v = record[name];
      if (!Array.isArray(v)) return count(name, fallback);
      const [height, width] = v as unknown[];
      const square = v.length === 2 && height === width && Number.isInteger(height) && (height as number) > 0;
      return square ? (height as number) : fail(name, 'a positive integer or a square [n, n]');
    },
  };
}
