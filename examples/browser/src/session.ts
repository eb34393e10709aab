/** A model with its tokenizer, and pictures by their names. Runs in a browser and in Node, on the backend that was started. */
import { loadModel, textIds } from '@blip2/blip2';
import type { Blip2 } from '@blip2/blip2';
import { makeProcessor, makeTokenizer, parseImageConfig, pixelValues } from '@blip2/data-captions';
import type { Example, Processor, RgbImage } from '@blip2/data-captions';
import { generateCaptions, loadedStage, runStage, stageInput } from '@blip2/trainer';
import { readSafetensors } from '@blip2/weights';

/** The files of a checkpoint folder. */
export interface BaseFiles {
  'config.json': Record<string, unknown>;
  'preprocessor_config.json': Record<string, unknown>;
  'tokenizer.json': Record<string, unknown>;
  'tokenizer_config.json': Record<string, unknown>;
  'model.safetensors': Uint8Array;
}

export interface Session {
  model: Blip2;
  processor: Processor;
  pictures: Map<string, RgbImage>;
  /** [N, Dv] of each picture that was looked at: what the vision tower finds, which never trains here. */
  features: Map<string, Float32Array>;
}

/** @throws ModelError, WeightsError or DataError for files that cannot be used */
export async function openSession(files: BaseFiles): Promise<Session> {
  const weights = await readSafetensors(files['model.safetensors']);
  const model = await loadModel({ config: files['config.json'], weights });
  const ids = textIds(model.config);
  const json = { tokenizer: files['tokenizer.json'], config: files['tokenizer_config.json'] };
  const image = parseImageConfig(files['preprocessor_config.json'], 'preprocessor_config.json');
  const pictures = new Map<string, RgbImage>();
  const processor = makeProcessor(ids, {
    tokenizer: makeTokenizer(json, 'tokenizer.json', ids.imageToken),
    image,
    pixels: async (name, view) => pixelValues(picture(pictures, name), image, view),
  });
  return { model, processor, pictures, features: new Map() };
}

function picture(pictures: Session['pictures'], name: string | Uint8Array): RgbImage {
  const found = typeof name === 'string' ? pictures.get(name) : undefined;
  if (!found) throw new Error(`expected the name of a picture, found ${String(name)}`);
  return found;
}

/** The image input of the model for these pictures; each goes through the vision tower once. */
export async function imageInput(session: Session, names: readonly string[]) {
  const { model, processor, features } = session;
  const stage = loadedStage(model, 'image_features');
  const [rows, columns] = stage.shape;
  const all = new Float32Array(names.length * rows * columns);
  for (const [i, name] of names.entries()) {
    const values = features.get(name) ?? (await runStage(stage, [await processor.pixels(name)]))[0]!;
    features.set(name, values);
    all.set(values, i * rows * columns);
  }
  return stageInput(stage.name, stage.shape, all);
}

/** A caption of each picture, by greedy decoding as `blip2 caption` does. */
export function captions(
  session: Session,
  names: readonly string[],
  model = session.model,
): Promise<string[]> {
  const examples = names.map((image): Example => ({ image, fields: {}, source: image }));
  return generateCaptions(model, session.processor, examples, {
    task: 'caption',
    batch_size: 8,
    num_beams: 1,
    embeds: (indices) =>
      imageInput(
        session,
        indices.map((i) => names[i]!),
      ),
  });
}
