import type { Tensor2D, Tensor3D } from '@blip2/nn';
import { encodeImages, parseVisionConfig, poolImages } from '@blip2/vision-encoder';
import type { VisionConfig, VisionModel } from '@blip2/vision-encoder';
import { same } from './types.js';

same<ReturnType<typeof parseVisionConfig>, VisionConfig>(true);
same<ReturnType<typeof encodeImages>, Tensor3D>(true);
same<ReturnType<typeof poolImages>, Tensor2D>(true);
same<Parameters<typeof encodeImages>[0], VisionModel>(true);
// @ts-expect-error pixels are [B, H, W, 3] or [B, 3, H, W]: four dimensions
encodeImages({} as VisionModel, {} as Tensor3D, {} as VisionConfig);
