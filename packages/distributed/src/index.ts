/** Training in several processes, started by mpirun or srun. */
export { launchOf } from './launch';
export type { Launch } from './launch';
export { openWorld } from './world';
export type { OpenWorld } from './world';
