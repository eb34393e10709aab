/** Prints the parts, parameter counts and storage of a checkpoint, from its config and weight headers. */
import { join } from 'node:path';
import { loadConfig } from '@blip2/blip2/node';
import type { Blip2Config } from '@blip2/blip2';
import type { TextConfig } from '@blip2/nn';
import type { RetrievalConfig } from '@blip2/retrieval';
import { isRetrievalFolder, loadRetrievalConfig } from '@blip2/retrieval/node';
import { openWeights } from '@blip2/weights/node';
import { modelDir } from '../model';
import { paint } from '../printable';
import type { Ui } from '../ui';
import { bytes, columns } from '../ui';

interface Part {
  part: string;
  parameters: number;
  bytes: number;
  dtypes: string[];
}

export async function inspectModel(model: string, ui: Ui): Promise<void> {
  const dir = modelDir(model);
  const sizes = isRetrievalFolder(dir)
    ? retrievalSizes(await loadRetrievalConfig(dir))
    : sizesOf(await loadConfig(dir));
  const parts = await partsOf(dir);
  const total = (key: 'parameters' | 'bytes') => parts.reduce((sum, part) => sum + part[key], 0);
  const all = { parameters: total('parameters'), bytes: total('bytes') };
  ui.result({ model, ...all, parts, sizes }, () =>
    [
      paint.bold(join(dir)),
      ...Object.entries<string>(sizes).map(([name, size]) => `  ${name.padEnd(8)} ${size}`),
      '',
      columns([
        ['part', 'parameters', 'stored', 'dtype'],
        ...parts.map((part) => [part.part, part.parameters, bytes(part.bytes), part.dtypes.join(', ')]),
        ['total', all.parameters, bytes(all.bytes), ''],
      ]),
    ].join('\n'),
  );
}

/** Parameters, bytes and dtypes of each part, in the order of the checkpoint. */
async function partsOf(dir: string): Promise<Part[]> {
  const reader = await openWeights(dir);
  const parts = new Map<string, Part>();
  for (const { name, shape, dtype, begin, end } of reader.entries.values()) {
    const key = name.split('.')[0];
    const part = parts.get(key) ?? { part: key, parameters: 0, bytes: 0, dtypes: [] };
    part.parameters += shape.reduce((product, size) => product * size, 1);
    part.bytes += end - begin;
    if (!part.dtypes.includes(dtype)) part.dtypes.push(dtype);
    parts.set(key, part);
  }
  await reader.close();
  return [...parts.values()];
}

/** What the Q-Former reads beside the image. */
const readsOf = ({ words }: Blip2Config['qformer_config']) =>
  words
    ? `, reads the instruction: vocabulary ${words.vocab_size}, ${words.max_position_embeddings} positions`
    : '';

function retrievalSizes(config: RetrievalConfig) {
  const { architecture, vocab_size, max_position_embeddings, image_text_hidden_size } = config;
  return {
    ...imageSizes(config),
    texts: `vocabulary ${vocab_size}, at most ${max_position_embeddings} tokens, read by the Q-Former`,
    vectors: `${image_text_hidden_size} wide`,
    model: `${architecture}: compares images and texts, writes none`,
  };
}

function sizesOf(config: Blip2Config) {
  const images = imageSizes(config);
  const text: TextConfig = config.text_config;
  const depths = [text.num_hidden_layers, text.num_decoder_layers].filter((depth) => depth !== undefined);
  return {
    ...images,
    qformer: images.qformer + readsOf(config.qformer_config),
    text: `vocabulary ${text.vocab_size}, ${depths.join(' + ')} layers × ${text.hidden_size}`,
  };
}

function imageSizes({
  num_query_tokens,
  vision_config: vision,
  qformer_config: qformer,
}: Pick<Blip2Config, 'num_query_tokens' | 'vision_config' | 'qformer_config'>) {
  return {
    vision: `${vision.image_size} px, patch ${vision.patch_size}, ${vision.num_hidden_layers} layers × ${vision.hidden_size}`,
    qformer: `${num_query_tokens} queries, ${qformer.num_hidden_layers} layers × ${qformer.hidden_size}`,
  };
}
