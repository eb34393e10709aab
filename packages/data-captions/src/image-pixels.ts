/** Image files as the model's `pixel_values`. */
import type { View } from './augment';
import { withImage } from './decode-image';
import type { ImageConfig } from './pixels';
import { pixelValues } from './pixels';

/**
 * Decodes, resizes and normalises one image (a name, or the bytes of a file), or a view of it: [3, height, width].
 * @throws DataError when the image cannot be read or decoded
 */
export const imagePixels = (
  image: string | Uint8Array,
  cfg: ImageConfig,
  view?: View,
): Promise<Float32Array> => withImage(image, cfg.decoding, (whole) => pixelValues(whole, cfg, view));
