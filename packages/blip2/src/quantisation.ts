/** Quantised checkpoints that are not supported: recognised by config.json, before any tensor is read. */

type Json = Record<string, unknown>;

/** The fields by which transformers, compressed-tensors and MLX mark a quantised checkpoint. */
const FIELDS = ['quantization_config', 'compression_config', 'quantization'];
const PARTS = ['text_config', 'vision_config', 'qformer_config'];

/** By which unsupported method a checkpoint or a part of it is quantised, such as `gptq 4 bit (quantization_config)`, if any. */
export function unsupportedQuantisation(raw: Json): string | undefined {
  for (const [part, config] of [
    ['', raw] as const,
    ...PARTS.map((name) => [`${name}.`, raw[name]] as const),
  ]) {
    for (const field of FIELDS) {
      const value = isRecord(config) ? config[field] : undefined;
      const method = isRecord(value) ? methodOf(value) : undefined;
      if (method && !isSupported(value as Json)) return `${method} (${part}${field})`;
    }
  }
  return undefined;
}

/** The `quantization_config` of INT4 weights of this program. */
export const OWN_QUANTISATION = { quant_method: 'blip2', bits: 4, version: 1 } as const;

/** Whether a model's raw configuration is of a checkpoint with INT4 weights of this program. */
export function isOwnQuantised({ quantization_config }: Json): boolean {
  return (
    isRecord(quantization_config) && quantization_config['quant_method'] === OWN_QUANTISATION.quant_method
  );
}

/** bitsandbytes, or weights of this program. */
function isSupported({ quant_method, load_in_8bit, load_in_4bit, version }: Json): boolean {
  if (quant_method === OWN_QUANTISATION.quant_method) return version === OWN_QUANTISATION.version;
  return (
    (quant_method ?? 'bitsandbytes') === 'bitsandbytes' && (load_in_8bit === true || load_in_4bit === true)
  );
}

/** A configuration without the fields that mark it as quantised: for weights that are written as floats. */
export function withoutQuantisation(config: Json): Json {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !FIELDS.includes(key)));
}

/** Reference: `QuantizationMethod` and the configurations of transformers, utils/quantization_config.py. */
function methodOf(config: Json): string | undefined {
  const { load_in_8bit, load_in_4bit, bnb_4bit_quant_type, quant_type } = config;
  if (Object.keys(config).length === 0) return undefined;
  const isBitsAndBytes = load_in_8bit !== undefined || load_in_4bit !== undefined;
  if (isBitsAndBytes && load_in_8bit !== true && load_in_4bit !== true) return undefined;
  const name = config['quant_method'] ?? (isBitsAndBytes ? 'bitsandbytes' : 'an unknown method');
  const type = load_in_4bit === true ? bnb_4bit_quant_type : quant_type;
  const bits = load_in_8bit === true ? 8 : load_in_4bit === true ? 4 : (config['bits'] ?? config['nbits']);
  const words = [name, type, typeof bits === 'number' ? `${bits} bit` : undefined];
  return words.flatMap((word) => (typeof word === 'string' ? [word.slice(0, 40)] : [])).join(' ');
}

function isRecord(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
