/**
 * What the model makes of pictures alone, kept for those that are asked about again: the vision tower then runs once for a picture, whatever
 * is asked. Adapters that leave this part of the model as it is share it.
 */
import { stagesOf } from '@blip2/blip2';
import type { Blip2, ImageInput, ImageStage } from '@blip2/blip2';
import { concat, flatten, reshape, slice, tensor, tidy } from '@blip2/nn';
import type { Tensor, Tensor3D, Tensor4D } from '@blip2/nn';

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

/** Returns the pictures of a batch as input of the model: [n, rows, cols], which the caller disposes. */
export type ReadPictures = (pictures: readonly Picture[]) => ImageInput;

/** A stage of a model, as it is run for pictures. */
export interface PictureStage extends Pick<ImageStage, 'name'> {
  /** the same for all models in which this stage is the same */
  owner: string;
  run(pixel_values: Tensor4D): Tensor3D;
}

export function pictureReader(
  { owner, name, run }: PictureStage,
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
    return name === 'query_embeds' ? { query_embeds: features } : { image_features: features };
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
export function pictureStages(models: ReadonlyMap<string, Blip2>): Map<string, PictureStage> {
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
