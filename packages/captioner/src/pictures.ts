/**
 * What the model makes of pictures alone, kept for those that are asked about again: the vision tower then runs once for a picture, whatever
 * is asked. Adapters that leave this part of the model as it is share it.
 */
import { stagesOf } from '@blip2/blip2';
import type { Blip2, ImageInput, ImageStage } from '@blip2/blip2';
import { concat, flatten, reshape, slice, tensor, tidy } from '@blip2/nn';
import type { Tensor, Tensor3D, Tensor4D } from '@blip2/nn';
import { queryAttention } from './attention-maps';

/** A picture that is ready for the model. */
export interface Picture {
  /** [3, H, W] */
  pixels: Float32Array;
  /** a hash of the pixels */
  hash: string;
}

/** Tensors by key, up to a number of bytes; those that were not used for longest leave first. */
export class KeptTensors {
  private readonly kept = new Map<string, Tensor3D>();
  private bytes = 0;

  constructor(private readonly most: number) {}

  get(key: string): Tensor3D | undefined {
    const found = this.kept.get(key);
    if (!found) return undefined;
    this.kept.delete(key);
    this.kept.set(key, found);
    return found;
  }

  /** Takes the tensor over; one that is too large is disposed. */
  add(key: string, value: Tensor3D): void {
    this.remove(key);
    this.kept.set(key, value);
    this.bytes += 4 * value.size;
    for (const old of this.kept.keys()) {
      if (this.bytes <= this.most) return;
      this.remove(old);
    }
  }

  private remove(key: string): void {
    const old = this.kept.get(key);
    if (!old) return;
    this.kept.delete(key);
    this.bytes -= 4 * old.size;
    old.dispose();
  }
}

/** What a model makes of the pictures of a batch: [n, rows, cols]. The caller disposes it. */
export type ReadPictures = (pictures: readonly Picture[]) => Tensor3D;

/** How a model reads pictures. */
export interface PictureReaders {
  /** as its input */
  input(pictures: readonly Picture[]): ImageInput;
  /** where its queries look; see `queryAttention`. Undefined if that depends on the question */
  attention?: ReadPictures;
}

/** A stage of a model, as it is run for pictures. */
export interface PictureStage {
  /** the same for all models in which this stage is the same */
  owner: string;
  run(pixel_values: Tensor4D): Tensor3D;
}

/** The readers of each model, which share what is kept. @param models by the names of their adapters */
export function pictureReaders(
  models: ReadonlyMap<string, Blip2>,
  size: { height: number; width: number },
  kept: KeptTensors,
): Map<string, PictureReaders> {
  const readers = [...pictureStages(models)].map(
    ([adapter, { name, ...stage }]): [string, PictureReaders] => {
      const read = pictureReader(stage, size, kept);
      if (name === 'image_features') return [adapter, { input: (all) => ({ image_features: read(all) }) }];
      const model = models.get(adapter)!;
      const run = (pixel_values: Tensor4D) => queryAttention(model, pixel_values);
      const attention = pictureReader({ owner: `attention of ${stage.owner}`, run }, size, kept);
      return [adapter, { input: (all) => ({ query_embeds: read(all) }), attention }];
    },
  );
  return new Map(readers);
}

export function pictureReader(
  { owner, run }: PictureStage,
  { height, width }: { height: number; width: number },
  kept: KeptTensors,
): ReadPictures {
  return (pictures) => {
    const keys = pictures.map(({ hash }) => `${owner} ${hash}`);
    const found = new Map(keys.map((key) => [key, kept.get(key)]));
    const fresh = [...found].filter(([, features]) => !features).map(([key]) => key);
    const made =
      fresh.length > 0
        ? rowsOf(
            run,
            fresh.map((key) => pictures[keys.indexOf(key)].pixels),
            [height, width],
          )
        : [];
    fresh.forEach((key, i) => found.set(key, made[i]));
    const features = together(keys.map((key) => found.get(key)!));
    fresh.forEach((key, i) => kept.add(key, made[i]));
    return features;
  };
}

/** One after the other, in a tensor of its own. */
const together = (rows: Tensor3D[]) =>
  rows.length > 1 ? concat(rows, 0) : reshape<Tensor3D>(rows[0], rows[0].shape);

/** The output of a stage for each picture: [1, rows, cols]. */
function rowsOf(
  run: (pixel_values: Tensor4D) => Tensor3D,
  pixels: readonly Float32Array[],
  [H, W]: [number, number],
): Tensor3D[] {
  const size = 3 * H * W;
  const all = new Float32Array(pixels.length * size);
  pixels.forEach((one, i) => all.set(one, i * size));
  return tidy(() => {
    const rows = run(tensor<Tensor4D>(all, [pixels.length, 3, H, W]));
    return pixels.map((_, i) => slice(rows, [i, 0, 0], [1, rows.shape[1], rows.shape[2]]));
  });
}

/**
 * The deepest stage of each model that depends on the picture alone. Models that share its tensors have one owner.
 * @param models by the names of their adapters
 */
export function pictureStages(
  models: ReadonlyMap<string, Blip2>,
): Map<string, PictureStage & Pick<ImageStage, 'name'>> {
  const all = [...models].map(([name, model]) => {
    const stage = stagesOf(model.config).at(-1)!;
    return { name, model, stage, tensors: tensorsOf(model, stage) };
  });
  return new Map(
    all.map(({ name, model, stage, tensors }) => {
      const owner = all.find((other) => areSame(other.tensors, tensors))!.name;
      return [name, { owner, name: stage.name, run: (pixels) => stage.run(model, pixels) }];
    }),
  );
}

const tensorsOf = ({ params }: Blip2, { parts }: ImageStage) =>
  new Map(
    [...flatten(params)].filter(([name]) =>
      parts.some((part) => name === part || name.startsWith(`${part}.`)),
    ),
  );

const areSame = (a: ReadonlyMap<string, Tensor>, b: ReadonlyMap<string, Tensor>) =>
  a.size === b.size && [...a].every(([name, tensor]) => b.get(name) === tensor);
