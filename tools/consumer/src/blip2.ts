import { forward, generate, imagePrompt, loadModel, loss, streamTokens } from '@blip2/blip2';
import { loadFolder, saveModel } from '@blip2/blip2/node';
import type { Blip2, Blip2Config, StreamedToken, TokenBatch } from '@blip2/blip2';
import type { Scalar, Tensor4D } from '@blip2/nn';
import { same } from './types.js';

const image = { pixel_values: {} as Tensor4D };
const tokens = imagePrompt({} as Blip2Config, 2);

same<typeof tokens, TokenBatch>(true);
same<ReturnType<typeof loadFolder>, Promise<Blip2>>(true);
same<ReturnType<typeof loadModel>, Promise<Blip2>>(true);
same<ReturnType<typeof saveModel>, Promise<void>>(true);
same<ReturnType<typeof loss>, Scalar>(true);
same<ReturnType<typeof generate>, Promise<number[][]>>(true);
same<ReturnType<typeof streamTokens>, AsyncGenerator<StreamedToken, void, void>>(true);

void generate({} as Blip2, image, tokens, { num_beams: 5, max_new_tokens: 20 });
forward({} as Blip2, undefined, tokens); // text alone
// @ts-expect-error options as transformers spells them
void generate({} as Blip2, image, tokens, { numBeams: 5 });
// @ts-expect-error a batch of tokens is needed
forward({} as Blip2, image);
// @ts-expect-error a folder is loaded by loadFolder
void loadModel('model');
