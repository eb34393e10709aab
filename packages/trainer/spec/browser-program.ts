/** The program that bundle.spec.ts bundles: a picture becomes pixel_values, a text tokens, and a toy is trained. */
import {
  collate,
  makeProcessor,
  makeTokenizer,
  parseImageConfig,
  pixelValues,
  toRgb,
} from '@blip2/data-captions';
import { cpuBackend, startBackend } from '@blip2/nn';
import { train } from '../src/browser';
import { toyParts, valuesOf } from './toy';

export * as dataCaptions from '@blip2/data-captions';
export * as trainer from '../src/browser';

/** Plain arrays, because a typed array of another realm fails `instanceof`. */
export interface ProgramInput {
  /** RGBA */
  picture: { data: number[]; width: number; height: number };
  preprocessor: Record<string, unknown>;
  tokenizer: Record<string, unknown>;
}

export async function run({ picture, preprocessor, tokenizer }: ProgramInput) {
  await startBackend(cpuBackend);
  const image = parseImageConfig(preprocessor, 'preprocessor_config.json');
  const { width, height } = picture;
  const rgb = toRgb({ data: Uint8Array.from(picture.data), width, height, channels: 4 });
  const processor = makeProcessor(
    { rows: 'causal', bos: 2, eos: 31, pad: 1, imageToken: 58, numQueryTokens: 4 },
    {
      tokenizer: makeTokenizer({ tokenizer }, 'tokenizer.json', 58),
      image,
      pixels: async (_, view) => pixelValues(rgb, image, view),
    },
  );
  const { labels, input_ids } = collate([{ prompt: '', target: 'a dog', source: 'row 1' }], processor);
  const parts = toyParts({ batch: 3, rate: 0.1 });
  const losses: number[] = [];
  const every = { gradient_accumulation_steps: 1, seed: 5, logging_steps: 1, eval_steps: 9, save_steps: 9 };
  await train(parts, { totalSteps: 30, ...every }, { onLog: ({ loss }) => void losses.push(loss) });
  return {
    pixels: [...(await processor.pixels('picture'))],
    tokens: [...input_ids, ...labels],
    text: processor.decode([...labels].filter((id) => id >= 0)),
    losses,
    weights: await valuesOf(parts.trainables),
  };
}
