import { bleu, cider, meteor, rougeL, scoreVqa, vqaAccuracy } from '@blip2/caption-metrics';
import type { Bleu, Cider, VqaScores } from '@blip2/caption-metrics';
import { same } from './types.js';

same<ReturnType<typeof bleu>, Bleu>(true);
same<ReturnType<typeof cider>, Cider>(true);
same<ReturnType<typeof meteor>, number>(true);
same<ReturnType<typeof rougeL>, number>(true);
same<ReturnType<typeof scoreVqa>, VqaScores>(true);
vqaAccuracy('two', ['two', '2'] as const);
// @ts-expect-error every caption has a list of references
bleu(['a dog'], ['a dog']);
