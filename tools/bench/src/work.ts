/**
 * Work that both sides do: batches in one safetensors file, which PyTorch reads too. Batch i has `i.input_ids`,
 * `i.attention_mask` and perhaps `i.labels` [B, T] (`seq2seq`: [B, U]); its P pictures are `i.pixel_values` [P, 3, S, S] or paths in the metadata.
 */
import { textIds } from '@blip2/blip2';
import type { Blip2Config } from '@blip2/blip2';
import { normal, rngKey, uniform } from '@blip2/nn';
import type { TextConfig } from '@blip2/nn';
import type { TensorToWrite, WeightReader } from '@blip2/weights';
import { openWeights, writeSafetensors } from '@blip2/weights/node';

export interface WorkBatch {
  input_ids: Int32Array;
  attention_mask: Int32Array;
  labels?: Int32Array;
  shape: [B: number, T: number];
  /** [B]: the picture of each row, if rows share them; else P is B. */
  pictures?: Int32Array;
  /** [P, 3, S, S] */
  pixel_values?: Float32Array;
  /** Image files, instead of pixels. */
  images?: string[];
  /** S */
  side: number;
}

type Row = Pick<WorkBatch, 'shape' | 'side'> & {
  labels: boolean;
  images: string[] | null;
  pictures: number[] | null;
};

/** P */
export const picturesIn = ({ pictures, shape: [B] }: WorkBatch) => (pictures ? Math.max(...pictures) + 1 : B);

export async function writeWork(file: string, batches: readonly WorkBatch[]): Promise<void> {
  const rows: Row[] = batches.map(({ shape, side, labels, images, pictures }) => {
    const shared = pictures ? [...pictures] : null;
    return { shape, side, labels: labels !== undefined, images: images ?? null, pictures: shared };
  });
  await writeSafetensors(file, batches.flatMap(tensorsOf), { format: 'pt', batches: JSON.stringify(rows) });
}

function tensorsOf(batch: WorkBatch, i: number): TensorToWrite[] {
  const { input_ids, attention_mask, labels, pixel_values, shape, side } = batch;
  const ints = Object.entries({ input_ids, attention_mask, labels }).flatMap(([name, data]) =>
    data
      ? [{ name: `${i}.${name}`, dtype: 'I32' as const, shape: [shape[0], data.length / shape[0]], data }]
      : [],
  );
  if (!pixel_values) return ints;
  const pixels = {
    name: `${i}.pixel_values`,
    dtype: 'F32' as const,
    shape: [picturesIn(batch), 3, side, side],
  };
  return [...ints, { ...pixels, data: pixel_values }];
}

export async function readWork(file: string): Promise<WorkBatch[]> {
  const reader = await openWeights(file);
  try {
    const rows = JSON.parse(reader.metadata.batches) as Row[];
    return await Promise.all(rows.map((row, i) => readBatch(reader, row, i)));
  } finally {
    await reader.close();
  }
}

async function readBatch(reader: WeightReader, row: Row, i: number): Promise<WorkBatch> {
  const ints = async (name: string) => Int32Array.from(await reader.readFloat32(`${i}.${name}`));
  return {
    input_ids: await ints('input_ids'),
    attention_mask: await ints('attention_mask'),
    ...(row.labels && { labels: await ints('labels') }),
    ...(row.images
      ? { images: row.images }
      : { pixel_values: await reader.readFloat32(`${i}.pixel_values`) }),
    ...(row.pictures && { pictures: Int32Array.from(row.pictures) }),
    shape: row.shape,
    side: row.side,
  };
}

export interface SyntheticOptions {
  batch: number;
  /** Tokens of the text, including the first one, without the image's. */
  text: number;
  seed: number;
  /** Rows of each picture. Default 1. */
  captions?: number;
  /** For generation: no labels. */
  prompt?: boolean;
}

/**
 * Random tokens and pixels. Every row is full, so both sides compute the same positions. For a `seq2seq` model the encoder reads the
 * image and an end token, and the text is the target.
 */
export function syntheticBatch(config: Blip2Config, o: SyntheticOptions): WorkBatch {
  const { num_query_tokens: Q, text_config, image_token_index: image, vision_config } = config;
  if (image === undefined) throw new Error('the model has no image_token_index, which a batch needs');
  const key = rngKey(o.seed);
  const { bos_token_id, eos_token_id, pad_token_id, vocab_size }: TextConfig = text_config;
  const isCausal = textIds(config).rows === 'causal';
  const first = isCausal ? bos_token_id! : eos_token_id;
  const special = new Set([image, first, pad_token_id, eos_token_id]);
  const draws = uniform(key, 2 * o.batch * o.text);
  const words = Array.from(draws, (u) => Math.floor(u * vocab_size)).filter((id) => !special.has(id));
  const T = Q + (isCausal ? o.text : 1);
  const at = (i: number) => i % T;
  const input_ids = Int32Array.from({ length: o.batch * T }, (_, i) => {
    if (at(i) < Q) return image;
    return at(i) === Q ? first : words.pop()!;
  });
  const labels = isCausal
    ? input_ids.map((id, i) => (at(i) > Q ? id : -100))
    : Int32Array.from({ length: o.batch * o.text }, () => words.pop()!);
  const { captions = 1 } = o;
  return {
    input_ids,
    ...(captions > 1 && {
      pictures: Int32Array.from({ length: o.batch }, (_, b) => Math.floor(b / captions)),
    }),
    attention_mask: new Int32Array(o.batch * T).fill(1),
    ...(!o.prompt && { labels }),
    shape: [o.batch, T],
    pixel_values: normal(key, (o.batch / captions) * 3 * vision_config.image_size ** 2),
    side: vision_config.image_size,
  };
}
