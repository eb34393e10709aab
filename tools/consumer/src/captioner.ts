import { CaptionerError, createCaptioner } from '@blip2/captioner';
import type { Captioner, ErrorName, GeneratedText, ScoredText, TextStream } from '@blip2/captioner';
import { same } from './types.js';

declare const captioner: Captioner;

same<ReturnType<typeof createCaptioner>, Promise<Captioner>>(true);
same<ReturnType<Captioner['caption']>, Promise<GeneratedText>>(true);
same<ReturnType<Captioner['score']>, Promise<ScoredText[]>>(true);
same<ReturnType<Captioner['streamAnswer']>, TextStream>(true);
same<CaptionerError['name'], ErrorName>(true);
void captioner.caption(new Blob([]), { adapter: 'cars', signal: AbortSignal.timeout(5) });
// @ts-expect-error a model is needed
void createCaptioner({});
// @ts-expect-error max_length is not an option
void captioner.caption('a.png', { max_length: 3 });
