import type { Tensor3D } from '@blip2/nn';
import { parseQFormerConfig, queryImages } from '@blip2/qformer';
import type { QFormerConfig, QFormerModel } from '@blip2/qformer';
import { same } from './types.js';

same<ReturnType<typeof parseQFormerConfig>, QFormerConfig>(true);
same<ReturnType<typeof queryImages>, Tensor3D>(true);
same<Parameters<typeof queryImages>[0], QFormerModel>(true);
// @ts-expect-error queries and images are two tensors
queryImages({} as QFormerModel, {} as Tensor3D, {} as QFormerConfig);
