/** A model of the same widths and fewer layers, with made-up weights, to time kernels without loading a checkpoint. */
import { blip2Weights, OUTPUT_LAYER, outputLayerName, textIds } from '@blip2/blip2';
import type { Blip2, Blip2Config, TokenBatch } from '@blip2/blip2';
import { nest, quantised, storedTensor, tensor } from '@blip2/nn';
import type { StoredWeight, Tensor, Tensor2D } from '@blip2/nn';
import type { ModelFacts } from './facts';

/** In the order of the forward pass. */
export const PARTS = ['vision', 'qformer', 'text'] as const;
export type Part = (typeof PARTS)[number];

/** Layers of the three parts. */
export type Depths = Record<Part, number>;

export function depthsOf({ vision_config, qformer_config, text_config }: Blip2Config): Depths {
  return {
    vision: vision_config.num_hidden_layers,
    qformer: qformer_config.num_hidden_layers,
    text: text_config.num_hidden_layers,
  };
}

/** The configuration with other numbers of layers. */
export function withDepths(
  config: Blip2Config,
  { vision, qformer, text }: Depths,
  vocabulary = Infinity,
): Blip2Config {
  const { vision_config, qformer_config, text_config } = config;
  const vocab_size = Math.min(text_config.vocab_size, vocabulary);
  return {
    ...config,
    vision_config: { ...vision_config, num_hidden_layers: vision },
    qformer_config: { ...qformer_config, num_hidden_layers: qformer },
    text_config: {
      ...text_config,
      ...{ num_hidden_layers: text, vocab_size },
      ...('num_decoder_layers' in text_config && { num_decoder_layers: text }),
    },
    image_token_index: vocab_size - 1,
  };
}

const numbers = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/** Numbers near ±0.008 in each encoding, as bit patterns of 16 or 32. */
const SMALL = { F32: 0x3c000000, F16: 0x2000, BF16: 0x3c00 } as const;

/**
 * A model whose matrices are stored as in the checkpoint, if the backend does that.
 * @param int8 whether a tensor is rounded to int8
 */
export function smallModel(
  config: Blip2Config,
  dtype: ModelFacts['dtype'],
  int8: (name: string, shape: number[]) => boolean = () => false,
): Blip2 {
  const table = blip2Weights(config);
  const most = Math.max(...table.map(([, shape]) => numbers(shape)));
  const wide = dtype === 'F32';
  const encoded = repeated(
    wide ? new Uint32Array(most) : new Uint16Array(most),
    wide ? 0x80000000 : 0x8000,
    dtype,
  );
  const head = outputLayerName(config);
  let output: StoredWeight | undefined;
  const leaves = table.map(([name, shape]) => {
    const bytes = new Uint8Array(encoded.buffer, 0, numbers(shape) * encoded.BYTES_PER_ELEMENT);
    const weight: StoredWeight = {
      shape: [shape[0], shape[1]],
      data: { bytes },
      encoding: { kind: dtype },
    };
    const stored =
      shape.length === 2 && storedTensor((int8(name, shape) ? quantised(weight) : undefined) ?? weight);
    if (name === head && stored && int8(OUTPUT_LAYER, shape)) output = weight;
    return [name, stored || tensor(floats(numbers(shape)), shape)] as const;
  });
  const flat = new Map<string, Tensor>(leaves);
  const params = nest(flat) as Blip2['params'];
  const rounded = output && storedTensor(quantised(output)!);
  return rounded
    ? { config, params, output_layer: { exact: flat.get(head) as Tensor2D, rounded } }
    : { config, params };
}

/** Fills an array with a pattern of small numbers of both signs. */
function repeated<T extends Uint16Array | Uint32Array>(array: T, sign: number, dtype: keyof typeof SMALL): T {
  const first = Math.min(array.length, PATTERN);
  for (let i = 0; i < first; i++) array[i] = SMALL[dtype] + (i % 113) + ((i * 7) % 3 === 0 ? sign : 0);
  for (let filled = first; filled < array.length; filled *= 2) array.copyWithin(filled, 0, filled);
  return array;
}

const floats = (length: number) =>
  new Float32Array(repeated(new Uint32Array(length), 0x80000000, 'F32').buffer);

const PATTERN = 1 << 16;

/**
 * Rows of an image and `length` tokens, of which all but the first are learned; a `seq2seq` model's encoder reads the first one. A
 * Q-Former that reads instructions gets one of INSTRUCTION tokens.
 * @param pictures that they share
 */
export function tokenRows(config: Blip2Config, batch: number, length: number, pictures = batch): TokenBatch {
  const { num_query_tokens: Q, image_token_index } = config;
  const { rows: kind, instruction_length } = textIds(config);
  const isCausal = kind === 'causal';
  const words = Array.from({ length }, (_, i) => 5 + (i % 90));
  const row = [...new Array<number>(Q).fill(image_token_index!), ...(isCausal ? words : words.slice(0, 1))];
  const labels = isCausal ? row.map((id, i) => (i > Q ? id : -100)) : words;
  const repeated = (values: number[]) =>
    Int32Array.from({ length: batch * values.length }, (_, i) => values[i % values.length]);
  return {
    shape: [batch, row.length],
    input_ids: repeated(row),
    attention_mask: new Int32Array(batch * row.length).fill(1),
    labels: repeated(labels),
    pictures: Int32Array.from({ length: batch }, (_, b) => Math.floor((b * pictures) / batch)),
    ...(instruction_length && { instructions: instructionRows(batch, instruction_length) }),
  };
}

/** Tokens of "A short image description." or a short question, with their start and end. */
const INSTRUCTION = 9;

function instructionRows(batch: number, most: number): TokenBatch['instructions'] {
  const W = Math.min(INSTRUCTION, most);
  const input_ids = Int32Array.from({ length: batch * W }, (_, i) => 5 + (i % W));
  return { shape: [batch, W], input_ids, attention_mask: new Int32Array(batch * W).fill(1) };
}
