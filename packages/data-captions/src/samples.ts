/** Pixels of a decoded image. */

/** An 8-bit image, rows of RGB triples: data [height, width, 3]. */
export interface RgbImage {
  data: Uint8Array;
  width: number;
  height: number;
}

/** 8-bit samples: data [height, width, channels], grey or RGB, with or without alpha. */
export interface Samples extends RgbImage {
  channels: number;
}
