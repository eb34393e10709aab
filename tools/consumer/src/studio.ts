import { startStudio } from '@blip2/studio';
import type { RunningStudio } from '@blip2/studio';
import { same } from './types.js';

same<ReturnType<typeof startStudio>, Promise<RunningStudio>>(true);
// @ts-expect-error the command that starts blip2 is missing
void startStudio({ folders: ['.'], runs: 'runs', port: 0 });
