export { createProgram, run } from './run';
export { processIo } from './io';
export type { Io } from './io';
