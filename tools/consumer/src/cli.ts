import { processIo, run } from '@blip2/cli';
import type { Io } from '@blip2/cli';
import { same } from './types.js';

same<ReturnType<typeof run>, Promise<number>>(true);
same<ReturnType<typeof processIo>, Io>(true);
void run(['doctor', '--json']);
// @ts-expect-error words, as a shell splits them
void run('doctor');
