/** The kernels of @blip2/nn (documented in its kernels.ts) that have a shader. */
import type { KernelName } from '@blip2/nn';
import type { KernelsOf } from './kernel';
import { attention } from './kernels/attention';
import { elementwise } from './kernels/elements';
import { linear } from './kernels/linear';
import { loss } from './kernels/loss';
import { norm } from './kernels/norm';
import { optimizer } from './kernels/optimizer';
import { rows } from './kernels/rows';

/** These are compositions of the others. */
type Composed = 'NnDecoderLayers' | 'NnEncoderLayers' | 'NnPackedAttention' | 'NnPackedAttentionGrad';

export const nnKernels: KernelsOf<Exclude<KernelName, Composed>> = {
  ...attention,
  ...elementwise,
  ...linear,
  ...loss,
  ...norm,
  ...optimizer,
  ...rows,
};
